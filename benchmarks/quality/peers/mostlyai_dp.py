"""MOSTLY AI's engine (TabularARGN) under its own DP-SGD, with the sizes and the stopping rule that it ships with.

Source: Tiwald et al., "TabularARGN", arXiv:2501.12012. Unit: one row.
"""

import tempfile

import pandas as pd
import peer

INSTALL = "mostlyai-engine"
NOTES = (
    "epsilon counts value protection (at most 1, as by default, and at most half) and DP-SGD (Opacus RDP) added up",
    "training ends when the budget does or when it stops to gain on held-out real rows, which is read without noise",
    "the exact row count sets rates and steps",
)


def fit(task: peer.Task) -> peer.Sample:
    with peer.imports:
        from mostlyai.engine import TabularARGN
        from mostlyai.engine.domain import DifferentialPrivacyConfig
    kinds = {
        "categorical": "TABULAR_CATEGORICAL",
        "integer": "TABULAR_NUMERIC_AUTO",
        "continuous": "TABULAR_NUMERIC_AUTO",
    }
    scratch = tempfile.TemporaryDirectory(prefix="peer-")
    rows = task.train.copy()
    for column in task.columns:
        if column["kind"] == "categorical":
            rows[column["name"]] = rows[column["name"]].astype(object).map(str, na_action="ignore")
    budget = DifferentialPrivacyConfig(
        max_epsilon=task.epsilon, delta=task.delta, value_protection_epsilon=min(1.0, task.epsilon / 2)
    )
    model = TabularARGN(
        differential_privacy=budget,
        tgt_encoding_types={c["name"]: kinds[c["kind"]] for c in task.columns},
        max_epochs=1 if task.quick else 100,
        device="cpu",
        random_state=task.seed,
        workspace_dir=scratch.name,
    )
    model.fit(rows)

    def sample(wanted: int) -> pd.DataFrame:
        drawn = model.sample(n_samples=wanted, rare_category_replacement_method="sample")
        scratch.cleanup()
        return peer.in_schema(task, drawn)

    return sample


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=INSTALL, private=True, notes=NOTES))
