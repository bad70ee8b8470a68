"""How a model learns: networks, logistic regression, boosting; in memory, out of core, on several processes.

fit             one way in for every kind      network         optimiser steps of a network
logistic        logistic regression            boosting        boosted trees
class_weights   rare classes                   hard_labels     one class a row
rows            where rows come from           out_of_core     from a pool on disk
distributed     several processes
"""

__all__: list[str] = []
