"""CTGAN and TVAE as they come, without any privacy: the line that shows what privacy costs, or does not.

Source: Xu et al., "Modeling Tabular Data using Conditional GAN", arXiv:1907.00503.
"""

from typing import Any

import numpy as np
import pandas as pd
import peer

INSTALL = "ctgan"
NOTES = (
    "not private",
    "missing categories are a category; a missing number is a flag of its own beside the public minimum",
)
MISSING = "(missing)"


def fit_with(task: peer.Task, make: Any) -> peer.Sample:
    """Train what `make(epochs)` returns on all rows."""
    import torch

    torch.manual_seed(task.seed)
    rows, discrete = complete(task)
    model = make(1 if task.quick else 300)
    model.set_random_state(task.seed)
    model.fit(rows, discrete)
    return lambda wanted: peer.in_schema(task, with_missing(task, model.sample(wanted)))


def complete(task: peer.Task) -> tuple[pd.DataFrame, list[str]]:
    """The rows without a missing value, and the names of the discrete columns; column names are kept apart from flags."""
    out: dict[str, Any] = {}
    discrete = []
    for column in task.columns:
        name, values = column["name"], task.train[column["name"]]
        if column["kind"] == "categorical":
            out[name] = values.astype(object).map(str, na_action="ignore").fillna(MISSING).to_numpy()
            discrete.append(name)
            continue
        out[name] = pd.to_numeric(values).astype("float64").fillna(column["min"]).to_numpy()
        if column.get("nullable"):
            out[f"{name} {MISSING}"] = np.where(values.isna(), "yes", "no")
            discrete.append(f"{name} {MISSING}")
    return pd.DataFrame(out), discrete


def with_missing(task: peer.Task, drawn: pd.DataFrame) -> pd.DataFrame:
    """Drawn rows with their flags turned back into missing values."""
    for column in task.columns:
        flag = f"{column['name']} {MISSING}"
        if flag in drawn:
            drawn[column["name"]] = drawn[column["name"]].where(drawn[flag] == "no")
    return drawn
