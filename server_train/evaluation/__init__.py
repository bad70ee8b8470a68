"""Figures of a model on real rows: ranking, calibration, decisions and their cost, groups of customers.

assessment      all figures of one evaluation  metrics         AUC, Brier score, KS and the like
decisions       thresholds and costs           reliability     calibration curves
groups          rows by group                  fairness        what sets groups apart
held_out_curves curves of a training           private_scorer  a model as a private evaluation asks it
row_scores      scores, each from its row alone
"""

__all__: list[str] = []
