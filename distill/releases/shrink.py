"""A smaller bundle from a larger one: the same release, less of it, signed anew. Reads no row and costs no budget."""

from pathlib import Path
from typing import get_args

import numpy as np

from distill.common import files
from distill.common.keys import SigningKey
from distill.errors import BundleError, KeyFileError
from distill.exchange.bundle import Bundle, write_bundle
from distill.exchange.generator_codec import generator_of, parts_of, statistics_of
from distill.exchange.levels import Level
from distill.exchange.prior import USE
from distill.ledger import Ledger
from distill.releases.placement import require_place


def shrink_bundle(
    bundle: Bundle, level: Level, out: Path, *, ledger: Ledger, key: SigningKey, overwrite: bool = False
) -> str:
    """Write `bundle` at a smaller level to `out`; returns the new file's SHA-256.

    The new bundle names the committed one (`Manifest.derived_from`), so an officer finds its release in the ledger.

    Args:
        bundle: The committed bundle, verified.
        level: Below that of `bundle`.
        out: Where it goes.
        ledger: That committed `bundle`.
        key: That signed `bundle`.
        overwrite: Whether a file at `out` may be replaced.

    Raises:
        BundleError: The level is not smaller, the ledger did not commit `bundle`, or `out` cannot be written.
        KeyFileError: `key` did not sign `bundle`.
    """
    manifest = bundle.manifest
    _require_smaller(manifest.level, level, bundle.path)
    if key.public_hex != manifest.public_key:
        raise KeyFileError(f"{bundle.path} is signed by another key. Name the project that made it (--project).")
    if not any(r.bundle == bundle.digest for r in ledger.summary().releases):
        raise BundleError(
            f"{bundle.path} is not a bundle that this ledger committed (a shrunk bundle cannot be shrunk again). "
            "Name the bundle that `fit` wrote."
        )
    require_place(out, protected=(bundle.path, ledger.path), overwrite=overwrite)
    # The draw of records follows the bundle itself: the same bundle shrinks to the same records.
    rng = np.random.default_rng(int(bundle.digest[:16], 16))
    tensors, settings = parts_of(generator_of(bundle), *statistics_of(bundle), level, rng)
    if USE in manifest.generator:
        settings[USE] = manifest.generator[USE]  # the smaller bundle depends on the same prior
    with files.wrapped("write the bundle", out, BundleError), files.staged(out) as temporary:
        try:
            digest = write_bundle(
                temporary,
                institution=manifest.institution,
                dataset=manifest.dataset,
                schema=manifest.schema_,
                privacy=manifest.privacy,
                noisy_rows=manifest.noisy_rows,
                class_prior=manifest.class_prior,
                generator=settings,
                ledger=manifest.ledger,
                samples=bundle.samples.iloc[:0],
                tensors=tensors,
                key=key,
                rehearsal=manifest.rehearsal,
                level=level,
                derived_from=bundle.digest,
                created=manifest.created,
            )
            files.put_in_place(temporary, out, overwrite=overwrite)
        finally:
            temporary.unlink(missing_ok=True)
    return digest


def _require_smaller(have: Level, wanted: Level, path: Path) -> None:
    order: tuple[Level, ...] = get_args(Level)  # from full to compact
    if order.index(wanted) <= order.index(have):
        smaller = ", ".join(order[order.index(have) + 1 :])
        raise BundleError(
            f"{path} is {have}, so it cannot become {wanted}; "
            + (f"it can become {smaller}." if smaller else "there is no smaller level.")
        )
