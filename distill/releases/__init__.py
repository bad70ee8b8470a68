"""What spends budget: a fit, a private evaluation, a federated training.

fit             one bundle                     evaluation      figures of a model on private rows
training        private rounds of federation   lifecycle       the order that all of them follow
placement       where the result goes          known_tables    whether a table has a ledger already
fingerprint     what tells tables apart        shrink          a smaller bundle, at no cost
"""

__all__: list[str] = []
