"""Made-up credit tables of three banks that lend to different people, for the demo and for tests.

Nothing here comes from real customers: every row is drawn from the small model below. The three banks share *one*
law of default given the columns, and differ in whom they lend to, so each of them sees only part of the population:

- `retail_bank`    settled borrowers of middle age and pensioners, home and car loans, few late payments;
- `credit_union`   public servants, students and young families of one region, small education and medical loans;
- `online_lender`  young and self-employed borrowers, debt consolidation and business loans, high debts, long terms.

What makes the tables worth learning from: correlated columns (age, income, years in the job, housing and debts hang
together through two hidden traits), effects that turn around between groups (education loans are safe for the young
and risky later, a late payment says little about the young, long terms hurt pensioners), rare positives, and values
that are missing for a reason (no credit line, no job) as well as by accident. The held-out table mixes the three
populations in proportion to the banks' sizes.

The schema's bounds and categories were written by hand as a data dictionary would state them, before any draw.
Everything is a function of the `rng` that the caller hands in; nothing here needs to be private.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill.common import checks
from distill.data.schema import Column, Schema

Floats = NDArray[np.float64]

TARGET = "default"
EMPLOYMENT = ("salaried", "public_sector", "self_employed", "retired", "student", "unemployed")
HOUSING = ("own", "mortgage", "rent", "family")
REGIONS = ("north", "east", "south", "west", "capital")
PURPOSES = ("car", "home_improvement", "education", "medical", "debt_consolidation", "business")
TERMS = (12, 24, 36, 48, 60, 84)
HELD_OUT_ROWS = 6_000


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Whom one bank lends to; shares are in the order of the category lists above and need not sum to one.

    Attributes:
        name: Also the name of the bank's folder and files in the demo.
        rows: Rows of its table unless the caller asks for another number.
        age: Mean and spread of its borrowers' ages in years.
        employment, housing, region, purpose: Shares of the categories.
        income: Factor on every income.
        debts: Shift of the hidden debt trait, in its standard deviations.
        term_step: Steps in `TERMS` by which its loans run longer.
        forgets: Chance that a nullable value is missing by accident.
    """

    name: str
    rows: int
    age: tuple[float, float]
    employment: tuple[float, ...]
    housing: tuple[float, ...]
    region: tuple[float, ...]
    purpose: tuple[float, ...]
    income: float
    debts: float
    term_step: float
    forgets: float


RETAIL_BANK = Bank(
    name="retail_bank",
    rows=8_000,
    age=(55.0, 10.0),
    employment=(62, 14, 3, 0, 0.3, 0.7),
    housing=(34, 46, 16, 4),
    region=(36, 38, 3, 20, 3),
    purpose=(50, 44, 1, 3, 1.5, 0.5),
    income=1.15,
    debts=-0.7,
    term_step=1.2,
    forgets=0.01,
)
CREDIT_UNION = Bank(
    name="credit_union",
    rows=5_000,
    age=(33.0, 9.0),
    employment=(26, 50, 3, 0, 18, 3),
    housing=(8, 20, 42, 30),
    region=(5, 4, 2, 86, 3),
    purpose=(20, 6, 40, 32, 1.5, 0.5),
    income=0.85,
    debts=-0.1,
    term_step=-0.8,
    forgets=0.03,
)
ONLINE_LENDER = Bank(
    name="online_lender",
    rows=6_000,
    age=(31.0, 6.0),
    employment=(46, 1, 42, 0, 3, 8),
    housing=(2, 6, 72, 20),
    region=(3, 4, 55, 2, 36),
    purpose=(2, 1, 2, 5, 54, 36),
    income=0.95,
    debts=0.8,
    term_step=0.5,
    forgets=0.06,
)
BANKS = (RETAIL_BANK, CREDIT_UNION, ONLINE_LENDER)


@dataclass(frozen=True, kw_only=True)
class DemoTables:
    """Everything the demo starts from.

    Attributes:
        schema: The public schema that all tables share.
        banks: One table a bank, under the bank's name.
        held_out: Fresh rows of the mixed population; no bank holds them.
    """

    schema: Schema
    banks: Mapping[str, pd.DataFrame]
    held_out: pd.DataFrame


def demo_schema() -> Schema:
    """The public schema of the credit tables: twelve features and the target `default` (1: the loan was not repaid)."""
    return Schema(
        name="demo_credit",
        target=TARGET,
        columns=(
            Column(name="age", kind="integer", min=18, max=100, description="years, at application"),
            Column(name="income", kind="continuous", min=0, max=500_000, description="yearly, before tax"),
            Column(name="employment", kind="categorical", categories=EMPLOYMENT),
            Column(name="years_employed", kind="integer", min=0, max=60, nullable=True, description="missing: no job"),
            Column(name="housing", kind="categorical", categories=HOUSING),
            Column(name="region", kind="categorical", categories=REGIONS, nullable=True),
            Column(name="purpose", kind="categorical", categories=PURPOSES),
            Column(name="amount", kind="integer", min=0, max=100_000, description="of the loan"),
            Column(name="term", kind="categorical", categories=TERMS, description="months"),
            Column(name="debt_to_income", kind="continuous", min=0, max=3, description="debts over yearly income"),
            Column(
                name="utilisation",
                kind="continuous",
                min=0,
                max=1.5,
                nullable=True,
                description="used share of credit lines; missing: no credit line",
            ),
            Column(name="late_payments", kind="integer", min=0, max=50, description="in the last two years"),
            Column(name=TARGET, kind="categorical", categories=(0, 1), description="1: not repaid"),
        ),
    )


def demo_tables(
    rng: np.random.Generator,
    *,
    rows: Mapping[str, int] | None = None,
    held_out_rows: int = HELD_OUT_ROWS,
) -> DemoTables:
    """Draw all tables of the demo.

    Args:
        rng: The only source of chance: the same generator state gives the same tables.
        rows: Rows for each bank, by its name; a bank that is not named keeps its own number.
        held_out_rows: Rows of the mixed table.

    Returns:
        The schema, one table a bank and the held-out table, in the schema's column order.

    Raises:
        ConfigError: a number of rows is not positive.
    """
    sizes = {bank.name: (rows or {}).get(bank.name, bank.rows) for bank in BANKS}
    tables = {bank.name: bank_table(bank, rows=sizes[bank.name], rng=rng) for bank in BANKS}
    return DemoTables(schema=demo_schema(), banks=tables, held_out=mixed_table(rows=held_out_rows, rng=rng))


def mixed_table(*, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Fresh rows of the three populations in proportion to the banks' usual sizes, in random order."""
    checks.positive(rows=rows)
    shares = np.array([bank.rows for bank in BANKS], dtype=float)
    counts = rng.multinomial(rows, shares / shares.sum())
    parts = [bank_table(bank, rows=int(n), rng=rng) for bank, n in zip(BANKS, counts, strict=True) if n]
    return pd.concat(parts, ignore_index=True).iloc[rng.permutation(rows)].reset_index(drop=True)


def bank_table(bank: Bank, *, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `rows` loans of one bank, in the schema's column order.

    Categories are strings (`term` and the target integers), numbers int64 or float64, `years_employed` the nullable
    Int64; what is missing is None, NA or NaN.
    """
    checks.positive(rows=rows)
    thrift, stability = rng.normal(size=(2, rows))  # hidden traits: they tie the columns together and are in no table
    age = np.clip(np.rint(rng.normal(*bank.age, size=rows)), 18, 92)
    employment = _employment(bank, age, rng)
    years = np.minimum(
        np.floor(rng.gamma(1.6, 1.0 + 0.11 * (age - 18) * np.exp(0.3 * stability))), np.minimum(age - 17, 55)
    )
    income = _income(bank, age, employment, stability, rng)
    purpose = _pick(PURPOSES, np.tile(bank.purpose, (rows, 1)), rng)
    amount = _amount(income, purpose, rng)
    debt_to_income = np.clip(np.exp(-1.3 + 0.45 * bank.debts - 0.35 * thrift + rng.normal(0, 0.5, rows)), 0, 2.8)
    used = 1 / (1 + np.exp(-(-0.6 + 0.6 * bank.debts - 0.9 * thrift + rng.normal(0, 0.8, rows)))) * 1.05
    frame = pd.DataFrame(
        {
            "age": age.astype(np.int64),
            "income": income,
            "employment": employment,
            "years_employed": years,
            "housing": _housing(bank, age, income, rng),
            "region": _pick(REGIONS, np.tile(bank.region, (rows, 1)), rng),
            "purpose": purpose,
            "amount": amount,
            "term": _term(bank, amount / income, rng),
            "debt_to_income": np.round(debt_to_income, 3),
            "utilisation": np.round(used, 3),
            "late_payments": rng.poisson(np.exp(-1.6 + 0.5 * bank.debts - 0.6 * thrift - 0.2 * stability)).clip(0, 30),
        }
    )
    log_odds = default_log_odds(frame) - 0.35 * thrift - 0.35 * stability
    frame[TARGET] = (rng.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    return _with_missing(frame, bank, rng)


def default_log_odds(frame: pd.DataFrame) -> Floats:
    """Log-odds of default of complete rows, but for the two hidden traits: one law for all banks."""
    share = np.clip(frame["debt_to_income"], 0, 1.5) - 0.3
    burden = (
        np.clip(frame["amount"] / frame["term"] * 12 / frame["income"], 0, 0.7) - 0.15
    )  # yearly repayment over income
    used, late = frame["utilisation"] - 0.4, np.minimum(frame["late_payments"], 4)
    steady = np.minimum(frame["years_employed"], 10) - 4
    young, settled, old = frame["age"] < 30, frame["age"] >= 42, frame["age"] >= 55
    rents, long = frame["housing"].isin(("rent", "family")), frame["term"] >= 60
    education, business = frame["purpose"] == "education", frame["purpose"] == "business"
    consolidation = frame["purpose"] == "debt_consolidation"
    additive = (
        _effect(frame["purpose"], PURPOSES, (0.3, -0.7, -0.6, 1.0, -1.1, 1.2))
        + _effect(frame["employment"], EMPLOYMENT, (0.0, -0.4, 0.7, 0.1, 0.4, 1.2))
        + _effect(frame["housing"], HOUSING, (-0.4, -0.1, 0.2, 0.1))
        + _effect(frame["region"], REGIONS, (-0.4, 0.4, -0.6, 0.0, 0.6))
        + np.where(settled, 3.5, 1.5) * burden
        - 0.3 * np.log(frame["income"] / 40_000)
    )
    turning = (
        np.where(settled, 1.1, 0.2) * late  # the young forget a bill, the settled cannot pay it
        + np.where(rents, 1.6, -1.0) * share  # mortgages are debts too, but safe ones
        + np.where(consolidation, -1.8, 2.0) * used  # who consolidates full credit cards gains by it
        + np.where(business, -0.2, -0.04) * steady
        + np.where(education, np.where(young, -0.7, 1.0), 0.0)
        + 0.9 * (young & ~education)
        + np.where(long, np.where(old, 1.5, -0.5), 0.0)
        + 1.2 * (old & rents)
    )
    return np.asarray(-2.75 + additive + turning, dtype=np.float64)


def _effect(column: "pd.Series[str]", categories: tuple[str, ...], sizes: tuple[float, ...]) -> Floats:
    """Each row's effect by its category."""
    return np.asarray(column.map(dict(zip(categories, sizes, strict=True))), dtype=np.float64)


def _pick(categories: tuple[str, ...], weights: Floats, rng: np.random.Generator) -> NDArray[np.object_]:
    """One category a row; `weights` has shape (n_rows, n_categories), its rows need not sum to one."""
    cumulative = np.cumsum(weights, axis=1)
    codes = (cumulative < rng.random((len(weights), 1)) * cumulative[:, -1:]).sum(axis=1)
    return np.asarray(np.array(categories, dtype=object)[codes], dtype=np.object_)


def _employment(bank: Bank, age: Floats, rng: np.random.Generator) -> NDArray[np.object_]:
    """Employment follows the bank's shares, but people retire around 65 and study when young."""
    weights = np.tile(np.asarray(bank.employment, dtype=float), (len(age), 1))
    weights[:, EMPLOYMENT.index("retired")] = weights.sum(axis=1) * 3 / (1 + np.exp(-(age - 66) / 1.5))
    weights[:, EMPLOYMENT.index("student")] *= np.exp(-np.maximum(age - 24, 0) / 4)
    return _pick(EMPLOYMENT, weights, rng)


def _income(
    bank: Bank, age: Floats, employment: NDArray[np.object_], stability: Floats, rng: np.random.Generator
) -> Floats:
    """Yearly income: highest around fifty, by employment, with a heavy upper tail."""
    level = pd.Series(employment).map(dict(zip(EMPLOYMENT, (1.0, 0.95, 1.1, 0.6, 0.3, 0.35), strict=True)))
    hump = 0.65 + 0.5 * np.exp(-(((age - 50) / 18) ** 2))
    noise = np.exp(rng.normal(0, 0.3, len(age)) + 0.15 * stability)
    income = 42_000 * bank.income * level.to_numpy(dtype=np.float64) * hump * noise
    return np.asarray(np.round(np.clip(income, 4_000, 480_000), 2))


def _housing(bank: Bank, age: Floats, income: Floats, rng: np.random.Generator) -> NDArray[np.object_]:
    """Housing follows the bank's shares; the older and the richer own more, the young live with their family."""
    weights = np.tile(np.asarray(bank.housing, dtype=float), (len(age), 1))
    weights[:, HOUSING.index("own")] *= np.exp((age - 45) / 20)
    weights[:, HOUSING.index("mortgage")] *= np.clip(income / 40_000, 0.1, 4)
    weights[:, HOUSING.index("family")] *= np.exp(-(age - 30) / 10)
    return _pick(HOUSING, weights, rng)


def _amount(income: Floats, purpose: NDArray[np.object_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Loan amount in whole hundreds: a share of the income that depends on the purpose."""
    level = pd.Series(purpose).map(dict(zip(PURPOSES, (0.35, 0.5, 0.25, 0.12, 0.4, 0.6), strict=True)))
    amount = level.to_numpy(dtype=np.float64) * income**0.8 * 8 * np.exp(rng.normal(0, 0.45, len(income)))
    return (np.clip(np.rint(amount / 100), 5, 950) * 100).astype(np.int64)


def _term(bank: Bank, loan_share: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Months: larger loans run longer, and so do those of some banks."""
    step = 1.2 + bank.term_step + 1.6 * np.clip(loan_share, 0, 1.5) + rng.normal(0, 1.1, len(loan_share))
    codes = np.clip(np.rint(step), 0, len(TERMS) - 1).astype(int)
    return np.asarray(np.array(TERMS)[codes], dtype=np.int64)


def _with_missing(frame: pd.DataFrame, bank: Bank, rng: np.random.Generator) -> pd.DataFrame:
    """Blank what does not exist (a job, a credit line) and what the bank forgot to ask."""
    forgotten = rng.random((3, len(frame))) < bank.forgets
    jobless = frame["employment"].isin(("retired", "student", "unemployed"))
    no_card = rng.random(len(frame)) < np.where(frame["age"] < 27, 0.35, 0.06)
    return frame.assign(
        years_employed=frame["years_employed"].astype("Int64").mask(jobless | forgotten[0]),
        region=frame["region"].where(~forgotten[1], None),
        utilisation=frame["utilisation"].mask(no_card | forgotten[2]),
    )
