"""An entry for the public registry of deployed differential privacy systems, as far as the ledger knows it.

Source of the shape: the Differential Privacy Deployments Registry of OpenDP (registry.opendp.org; proposed to NIST in IR 8588),
repository `opendp/deployments-registry-data`, whose records have the parts `basic`, `dp_variant`, `privacy_loss`,
`deployment_model`, `implementation` and `administrative`; read in the record `deployments/sas_data_maker_vulnerable_persons.yaml`
and, for the words that are allowed, `schemas/deployments-schema.yaml`. Transparency tiers: 1 needs `basic`, 2 also variant, loss
and model, 3 all. The registry moves on; compare its template before sending an entry.
"""

from typing import Any

from distill.audit.report.wording import read_in_words, worlds
from distill.common.metadata import software
from distill.errors import LedgerError
from distill.ledger import Ledger, LedgerSummary, Release, Verification

REGISTRY = "registry.opendp.org, Differential Privacy Deployments Registry"
TO_FILL = {
    "url_slug": "given by the registry",
    "deployment.basic.name": "what the data product is called in public",
    "deployment.basic.data_curators[0].data_curator_type": "for instance Industry, Government",
    "deployment.basic.description": "what the data product is, in two sentences",
    "deployment.basic.intended_use": "what it may be used for",
    "deployment.basic.data_product_region": "where the data subjects live",
    "deployment.basic.data_product_sector": "for instance Finance",
    "deployment.deployment_model.data_source_type": "Static, or Dynamic where rows are added between releases",
    "deployment.dp_variant.data_domain": "what a table may look like: from the public schema",
    "deployment.implementation.justification": "why this epsilon and delta: see the reasons of the grants in privacy_parameters_details",
    "deployment.administrative.evidence_sources": "where the deployment is described in public",
    "deployment.administrative.registry_authors": "who writes this entry",
    "deployment.administrative.tier": "3 once all of this is filled in, 2 without the optional parts",
}


def registry_entry(ledger: Ledger, *trusted: str, institution: str | None = None) -> dict[str, Any]:
    """Verify the ledger and write the entry: `entry` in the registry's shape, `to_fill` for what a ledger cannot know.

    What cannot be known is null, and `to_fill` says by its path what belongs there. Nothing is private: all of it is in the
    bundles that were sent.

    Raises:
        LedgerTamperedError, LedgerError: The ledger does not verify, or nothing was released yet.
    """
    found = ledger.verify(*trusted)
    committed = [r for r in found.summary.releases if r.status == "committed" and not r.rehearsal]
    if not committed:
        raise LedgerError(f"{ledger.path} holds no finished release, so there is nothing to register yet.")
    first = {e.body["release"]: e.time for e in reversed(found.entries) if e.kind == "commit"}
    published = min(first[r.release] for r in committed)[:10]
    notes = TO_FILL | (
        {} if institution else {"deployment.basic.data_curators[0].data_curator_name": "the institution"}
    )
    deployment = {
        "basic": _basic(institution, published),
        "dp_variant": _variant(found.summary),
        "privacy_loss": _loss(found, committed),
        "deployment_model": _model(committed),
        "implementation": _implementation(found.summary, committed),
        "administrative": {"evidence_sources": None, "status": "Draft", "registry_authors": None, "tier": None},
    }
    entry = {"url_slug": None, "deployment": deployment}
    return {"registry": REGISTRY, "entry": entry, "to_fill": notes}


def _basic(institution: str | None, published: str) -> dict[str, Any]:
    return {
        "name": None,
        "data_curators": [{"data_curator_name": institution, "data_curator_type": None}],
        "description": None,
        "intended_use": None,
        "data_product_type": "Synthetic data",
        "data_product_region": None,
        "data_product_sector": None,
        "publication_date": published,
    }


def _variant(summary: LedgerSummary) -> dict[str, Any]:
    return {
        "variant_name": "Approximate DP" if summary.spent_delta else "Pure DP",
        "data_domain": None,
        "unprotected_quantities": "None is released. Not covered are the public schema (kinds, bounds, categories), which must not "
        "be taken from the rows, and the fact that a release took place.",
    }


def _loss(found: Verification, committed: list[Release]) -> dict[str, Any]:
    summary = found.summary
    rows = max(e.rows_per_unit for r in committed for e in r.events)
    world = worlds(summary.unit, rows)
    each = "; ".join(f"epsilon {r.epsilon:g} at delta {r.delta:g}" for r in committed)
    return {
        "privacy_unit": "Record-level" if summary.unit == "row" else "User-level",
        "privacy_unit_details": f"Adjacent tables differ by one unit added or removed: {world.unit}. {world.warning}",
        "privacy_parameters": {"epsilon": summary.spent_epsilon, "delta": summary.spent_delta},
        "privacy_parameters_details": f"Sum over all releases so far, unfinished ones in full; finished: {each}. Granted in all: "
        f"epsilon {summary.granted_epsilon:g} at delta {summary.granted_delta:g}.",
    }


def _model(committed: list[Release]) -> dict[str, Any]:
    many = len(committed) > 1
    return {
        "model_name": "Central",
        "model_name_details": "The institution holds the rows and adds the noise itself; a hub receives signed files.",
        "actors": "- Operator at the institution: sees the rows, trusted.\n- Privacy officer: grants the budget by signature, sees "
        "no row.\n- Hub, other institutions, the public: see released files only, not trusted.",
        "release_type": "Many releases" if many else "One release",
        "release_type_details": f"{len(committed)} finished; a signed, hash-chained ledger refuses what would exceed the grant.",
        "data_source_type": None,
        "access_type": "Non-interactive",
    }


def _implementation(summary: LedgerSummary, committed: list[Release]) -> dict[str, Any]:
    reads = "\n".join(f"- {r.release[:8]} {e.name}: {read_in_words(e)}" for r in committed for e in r.events)
    filter = "basic composition" if summary.order is None else f"a Renyi filter of order {summary.order:g}"
    return {
        "preprocessing_and_hyperparameter_tuning": "Plans follow from the public schema and a noisy row count, which is paid for. No "
        "other look at the rows comes before the release, but for the check that the table fits its schema.",
        "mechanisms": f"{reads}\n- Counts: exact noise on a fine lattice, rounded (OpenDP library). Training steps: discrete "
        "Gaussian noise on the lattice of an exact sum. "
        f"Software: {software()}.",
        "composition": f"Within a release: privacy loss distributions (dp_accounting), cross-checked by Renyi DP. Across releases: "
        f"{filter}, which holds for releases chosen adaptively.",
        "post_processing": "Synthetic rows, models and published figures are made from the noisy answers alone.",
        "justification": None,
    }
