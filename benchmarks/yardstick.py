"""One yardstick for every synthetic table: the same split, the same classifiers, the same marginals.

Usefulness is the mean ROC-AUC of three classifiers (gradient boosting, logistic regression, a small neural network)
that learn from synthetic rows and are tested on real ones; of more than two classes the plain mean over classes of one
against the rest; of a number as the target, the mean R2 of three regressors of the same kinds. Faithfulness is the mean
total-variation distance (TVD; 0 best, 1 worst) between the synthetic and the real training rows' one-way and two-way
marginals, numbers cut at the deciles of the real training rows. All of it reads real rows without noise: only for public
data, never for a release.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SchemaDict = Mapping[str, Any]
Codes = dict[str, tuple[NDArray[np.int64], int]]  # column -> (cell of each row, number of cells)

BINS = 10
MAX_PAIRS = 300
TEST_SHARE = 0.2


def split(
    frame: pd.DataFrame, target: str | None, seed: int = 0, *, by_class: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(training rows, test rows): four to one, the target's classes in equal proportion if `by_class` and there is one."""
    from sklearn.model_selection import train_test_split

    strata = frame[target] if by_class and target is not None else None
    train, test = train_test_split(frame, test_size=TEST_SHARE, random_state=seed, stratify=strata)
    return train.reset_index(drop=True), test.reset_index(drop=True)


def clients(
    frame: pd.DataFrame, target: str, n: int = 5, alpha: float | None = 0.5, seed: int = 0, min_rows: int = 200
) -> list[pd.DataFrame]:
    """Deal the rows to `n` institutions: at random (`alpha` None), or each class by Dirichlet(alpha) shares.

    Under a small alpha an institution nearly *is* a label, so always look at the even deal beside it.
    """
    rng = np.random.default_rng(seed)
    if alpha is None:
        return [_take(frame, part) for part in np.array_split(rng.permutation(len(frame)), n)]
    for _ in range(1000):
        parts: list[list[NDArray[np.int64]]] = [[] for _ in range(n)]
        for value in np.unique(frame[target]):
            rows = rng.permutation(np.flatnonzero(frame[target] == value))
            cuts = (np.cumsum(rng.dirichlet([alpha] * n))[:-1] * len(rows)).astype(int)
            for part, dealt in zip(parts, np.split(rows, cuts), strict=True):
                part.append(dealt)
        whole = [np.concatenate(part) for part in parts]
        if min(map(len, whole)) >= min_rows:
            return [_take(frame, part) for part in whole]
    raise ValueError(f"no deal in 1000 leaves each of {n} institutions {min_rows} rows; raise alpha or lower n")


def clients_by(frame: pd.DataFrame, column: str, n: int = 5) -> list[pd.DataFrame]:
    """Deal the rows to `n` institutions by neighbouring values of one column."""
    values = frame[column]
    keys = values.to_numpy() if pd.api.types.is_numeric_dtype(values) else values.astype(str).to_numpy()
    return [_take(frame, part) for part in np.array_split(np.argsort(keys, kind="stable"), n)]


def permuted(frame: pd.DataFrame, target: str, seed: int = 0) -> pd.DataFrame:
    """The control: the same rows with shuffled labels, from which nothing can be learnt. Distrust a table where it seems so."""
    return frame.assign(**{target: np.random.default_rng(seed).permutation(frame[target].to_numpy())})


def evaluate(
    schema: SchemaDict, real_train: pd.DataFrame, synthetic: pd.DataFrame, real_test: pd.DataFrame, seed: int = 0
) -> dict[str, float]:
    """Scores of `synthetic`: `auc` (mean of hgb_auc, lr_auc, mlp_auc), `tvd1`, `tvd2` and the share of positives.

    Of a number as the target `r2` (mean of hgb_r2, lr_r2, mlp_r2) instead of AUCs; without a target the TVDs alone.
    """
    one, two = marginal_errors(schema, real_train, synthetic)
    target = _target(schema)
    judge = downstream if target is None or target["kind"] == "categorical" else downstream_number
    scores = {} if target is None else judge(schema, synthetic, real_test, seed)
    return scores | {"tvd1": one, "tvd2": two}


def downstream(schema: SchemaDict, train: pd.DataFrame, test: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """ROC-AUC on real test rows of three classifiers that learnt from `train`; .5 where `train` has one class only.

    Of more than two classes the mean over those in `test`, each against the rest; one that `train` lacks scores .5.
    `positives` is the share of rows of the last class in `train`.
    """
    from sklearn.metrics import roc_auc_score

    labels, truth = _labels(schema, train), _labels(schema, test)
    names = ("hgb", "lr", "mlp")
    scores = dict.fromkeys(names, 0.5)
    last = len(_classes(schema)) - 1
    if len(np.unique(labels)) >= 2:
        known, asked = features(schema, train), features(schema, test)
        for name, model in zip(names, _classifiers(seed), strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a solver that stops at its step limit is part of the definition
                model.fit(known, labels)
            chances = np.zeros((len(truth), last + 1))
            chances[:, model.classes_] = model.predict_proba(asked)
            ranked = [last] if last == 1 else [c for c in np.unique(truth) if (truth != c).any()]
            scores[name] = float(np.mean([roc_auc_score(truth == c, chances[:, c]) for c in ranked]))
    out = {f"{name}_auc": score for name, score in scores.items()}
    return out | {"auc": float(np.mean(list(scores.values()))), "positives": float((labels == last).mean())}


def downstream_number(schema: SchemaDict, train: pd.DataFrame, test: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """R2 on real test rows of three regressors that learnt from `train`; below 0 is worse than the mean of the test rows."""
    from sklearn.metrics import r2_score

    known, asked = features(schema, train), features(schema, test)
    name_of_target = schema["target"]
    labels, truth = _numbers(train[name_of_target]), _numbers(test[name_of_target])
    scores = {}
    for name, model in zip(("hgb", "lr", "mlp"), _regressors(seed), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            model.fit(known, labels)
        scores[f"{name}_r2"] = float(r2_score(truth, model.predict(asked)))
    return scores | {"r2": float(np.mean(list(scores.values())))}


def marginal_errors(
    schema: SchemaDict, real: pd.DataFrame, synthetic: pd.DataFrame, seed: int = 0
) -> tuple[float, float]:
    """Mean TVD over columns, and over (at most 300, drawn by `seed`) pairs of columns."""
    edges = _edges(schema, real)
    ours, theirs = _codes(schema, real, edges), _codes(schema, synthetic, edges)
    names = list(ours)
    pairs = [(first, second) for i, first in enumerate(names) for second in names[:i]]
    if len(pairs) > MAX_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(pairs), MAX_PAIRS, replace=False)
        pairs = [pairs[k] for k in chosen]
    singles = [_distance(ours, theirs, (name,)) for name in names]
    return float(np.mean(singles)), float(np.mean([_distance(ours, theirs, pair) for pair in pairs]))


def features(schema: SchemaDict, frame: pd.DataFrame) -> NDArray[np.float32]:
    """Numbers as they are (a flag where one may be missing), public categories one-hot; shape (n_rows, n_features)."""
    columns: list[NDArray[np.float64]] = []
    for column in schema["columns"]:
        if column["name"] == schema.get("target"):
            continue
        if column["kind"] == "categorical":
            codes = _category_codes(column, frame[column["name"]])
            columns.append((codes[:, None] == np.arange(len(column["categories"]))).astype(np.float64))
        else:
            values = _numbers(frame[column["name"]])
            columns.append(np.nan_to_num(values)[:, None])
            if column.get("nullable"):
                columns.append(np.isnan(values)[:, None].astype(np.float64))
    return np.hstack(columns).astype(np.float32)


def _classifiers(seed: int) -> Sequence[Any]:
    """The three classifiers, fresh."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((64, 32), early_stopping=True, max_iter=60, random_state=seed)
    return (
        HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, random_state=seed),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1)),
        make_pipeline(StandardScaler(), network),
    )


def _regressors(seed: int) -> Sequence[Any]:
    """The three regressors, fresh; the network learns a standardised target."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPRegressor(hidden_layer_sizes=(64, 32), early_stopping=True, max_iter=60, random_state=seed)
    return (
        HistGradientBoostingRegressor(max_iter=150, learning_rate=0.06, random_state=seed),
        make_pipeline(StandardScaler(), Ridge()),
        TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler()),
    )


def _target(schema: SchemaDict) -> Mapping[str, Any] | None:
    """The column to predict; None where nothing is."""
    return next((c for c in schema["columns"] if c["name"] == schema.get("target")), None)


def _classes(schema: SchemaDict) -> Sequence[Any]:
    """The target's classes."""
    column = _target(schema)
    if column is None or column["kind"] != "categorical":
        raise ValueError("the target has no classes; `evaluate` scores a number, or no target, in another way")
    return list(column["categories"])


def _labels(schema: SchemaDict, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Place of each row's class in the schema; rows of no class are an error."""
    column = _target(schema)
    known = len(_classes(schema))
    assert column is not None
    codes = _category_codes(column, frame[column["name"]])
    if (codes == known).any():
        raise ValueError(f"target {column['name']!r} holds values outside its classes")
    return codes


def _category_codes(column: Mapping[str, Any], values: "pd.Series[Any]") -> NDArray[np.int64]:
    """Place of each value among the public categories; their number for anything else, missing included."""
    places = {str(category): i for i, category in enumerate(column["categories"])}
    codes = values.map(lambda value: len(places) if pd.isna(value) else places.get(str(value), len(places)))
    return np.asarray(codes, dtype=np.int64)


def _numbers(values: "pd.Series[Any]") -> NDArray[np.float64]:
    """Floats, NaN for what is missing or no number."""
    return np.asarray(pd.to_numeric(values, errors="coerce").astype("float64"), dtype=np.float64)


def _edges(schema: SchemaDict, real: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Inner deciles of the real numbers."""
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    numbers = {c["name"]: _numbers(real[c["name"]]) for c in schema["columns"] if c["kind"] != "categorical"}
    return {name: np.unique(np.quantile(v[~np.isnan(v)], inner)) for name, v in numbers.items()}


def _codes(schema: SchemaDict, frame: pd.DataFrame, edges: Mapping[str, NDArray[np.float64]]) -> Codes:
    """Every column as cells: its categories, or its decile bins; the last cell is for what is missing."""
    out: Codes = {}
    for column in schema["columns"]:
        name = column["name"]
        if column["kind"] == "categorical":
            out[name] = (_category_codes(column, frame[name]), len(column["categories"]) + 1)
        else:
            values = _numbers(frame[name])
            cells = np.where(np.isnan(values), len(edges[name]) + 1, np.digitize(np.nan_to_num(values), edges[name]))
            out[name] = (cells.astype(np.int64), len(edges[name]) + 2)
    return out


def _distance(ours: Codes, theirs: Codes, names: Sequence[str]) -> float:
    """Total-variation distance of the joint distribution of the columns called `names`."""
    p, q = (_shares([codes[name] for name in names]) for codes in (ours, theirs))
    return 0.5 * float(np.abs(p - q).sum())


def _shares(columns: Sequence[tuple[NDArray[np.int64], int]]) -> NDArray[np.float64]:
    """Share of the rows in each joint cell."""
    sizes = [size for _, size in columns]
    joint = np.ravel_multi_index([codes for codes, _ in columns], sizes)
    return np.bincount(joint, minlength=int(np.prod(sizes))) / len(joint)


def _take(frame: pd.DataFrame, rows: NDArray[np.int64]) -> pd.DataFrame:
    return frame.iloc[rows].reset_index(drop=True)
