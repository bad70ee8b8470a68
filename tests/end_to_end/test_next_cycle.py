"""The next cycle: the hub's joint model goes back to the institutions, costs nothing, and is named wherever it was used."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.common.keys import SigningKey, generate_key
from distill.errors import ConfigError
from distill.exchange.bundle import read_bundle
from distill.exchange.generator_codec import generator_of
from server_train.hub.job import train_global
from server_train.hub.outputs import Outputs
from server_train.hub.prior import PriorPlace
from server_train.hub.request import TrainingRequest
from server_train.hub.results import GlobalResult
from server_train.intake.admission import Admission
from server_train.training.network import TrainingSettings
from tests.end_to_end.small_banks import Bank, distill, loans, make_bank, quicken, refusal

SEED = 7


def pooled(bundles: list[Path], out: Path, prior: Path | None, key: SigningKey | None) -> GlobalResult:
    request = TrainingRequest(
        bundles=tuple(bundles),
        rows=2000,
        settings=TrainingSettings(steps=20),
        admission=Admission(allow_unknown_signers=True, allow_rehearsal=True),
    )
    result = train_global(request, Outputs(folder=out, prior=PriorPlace(prior, key) if prior and key else None))
    assert isinstance(result, GlobalResult)
    return result


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two banks' rehearsals `north.distill` and `south.distill`, a hub's keys, and its `hub.prior`."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        for number, name in enumerate(("north", "south")):
            bank = make_bank(folder / name, loans(1500, seed=number))
            assert bank.fit("--rehearsal", number).exit_code == 0
            shutil.copy(bank.project.out, folder / f"{name}.distill")
    key = generate_key(folder / "hub.pem")
    made = pooled(sorted(folder.glob("*.distill")), folder / "model", folder / "hub.prior", key)
    assert made.prior_path == folder / "hub.prior"
    return folder


@pytest.fixture(scope="module")
def fits(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bank, Bank]:
    """Two banks of one table after the same rehearsal, without and with the prior."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        banks = [make_bank(tmp_path_factory.mktemp("fits") / "bank", loans(1500, seed=2)) for _ in range(2)]
        prior = ("--global-prior", hub / "hub.prior", "--hub-key", hub / "hub.pub")
        for bank, words in zip(banks, ((), prior), strict=True):
            ran = bank.fit("--rehearsal", SEED, *words)
            assert ran.exit_code == 0, ran.output
    return banks[0], banks[1]


def digest_of(hub: Path) -> str:
    return hashlib.sha256((hub / "hub.prior").read_bytes()).hexdigest()


def test_a_prior_moves_no_epsilon_and_no_read(fits):
    alone, with_prior = (bank.bundle for bank in fits)
    assert with_prior.manifest.privacy == alone.manifest.privacy
    charged = [[(r.epsilon, r.delta, r.status) for r in bank.books.releases] for bank in fits]
    assert charged[0] == charged[1]


def test_what_is_released_follows_the_prior(fits):
    counts = [bank.bundle.tensors["statistics"]["class_counts"] for bank in fits]
    assert counts[0].shape == counts[1].shape
    assert (counts[0] != counts[1]).any()


def test_bundle_and_ledger_name_the_prior(hub, fits):
    digest = digest_of(hub)
    assert "global_prior" not in fits[0].bundle.manifest.generator
    assert fits[1].bundle.manifest.generator["global_prior"]["sha256"] == digest
    purposes = [[str(e.body.get("purpose")) for e in bank.ledger.entries() if e.kind == "reserve"] for bank in fits]
    assert purposes == [["distill fit"], [f"distill fit; with global prior {digest}"]]


def test_a_shrunk_bundle_still_names_it(fits, tmp_path):
    bank, small = fits[1], tmp_path / "small.distill"
    ran = distill(
        "bundle", "shrink", bank.project.out, "--out", small, "--compress", "compact", "--project", bank.folder
    )
    assert ran.exit_code == 0, ran.output
    assert read_bundle(small).manifest.generator["global_prior"] == bank.bundle.manifest.generator["global_prior"]


def test_the_same_rehearsal_with_the_same_prior_gives_the_same_release(hub, fits, tmp_path, quick):
    again = make_bank(tmp_path / "bank", loans(1500, seed=2))
    ran = again.fit("--rehearsal", SEED, "--global-prior", hub / "hub.prior", "--hub-key", hub / "hub.pub", "--json")
    assert ran.exit_code == 0, ran.output
    assert digest_of(hub) in ran.stdout
    one, two = (generator_of(bank.bundle) for bank in (fits[1], again))
    np.testing.assert_array_equal(one.logits, two.logits)
    np.testing.assert_array_equal(one.head[0], two.head[0])


def test_a_hub_adds_what_the_prior_cost(hub, fits, tmp_path):
    """Two bundles at epsilon 2 made the prior: disjoint 2, overlapping 4; a third one that used it costs 2 more."""
    first = pooled(sorted(hub.glob("*.distill")), tmp_path / "first", None, None).card.privacy
    assert (first.disjoint.epsilon, first.overlapping.epsilon) == pytest.approx((2, 4))
    second = pooled([fits[1].project.out], tmp_path / "second", None, None).card.privacy
    assert (second.disjoint.epsilon, second.overlapping.epsilon) == pytest.approx((4, 6))
    assert (second.disjoint.delta, second.overlapping.delta) == pytest.approx((2e-5, 3e-5))
    alone = pooled([fits[0].project.out], tmp_path / "alone", None, None).card.privacy
    assert (alone.disjoint.epsilon, alone.overlapping.epsilon) == pytest.approx((2, 2))


def refused_untouched(bank: Bank, *words: Any) -> str:
    """The refusal of a fit, before the ledger was touched."""
    before = bank.ledger.entries()
    said = refusal(bank.fit(*words))
    assert bank.ledger.entries() == before
    assert not bank.project.out.exists()
    return said


def test_a_prior_needs_a_hub_that_is_known(hub, bank, tmp_path):
    assert "whose global prior is it?" in refused_untouched(bank, "--global-prior", hub / "hub.prior", "--rehearsal", 1)
    generate_key(tmp_path / "other.pem")
    words = ("--global-prior", hub / "hub.prior", "--hub-key", tmp_path / "other.pub", "--rehearsal", 1)
    assert "Anybody can sign a file" in refused_untouched(bank, *words)


def test_no_release_depends_on_a_rehearsals_prior(hub, bank):
    words = ("--global-prior", hub / "hub.prior", "--hub-key", hub / "hub.pub")
    assert "NOT PRIVATE" in refused_untouched(bank, *words)


def test_the_project_may_name_the_hub(hub, bank):
    toml = bank.folder / "distill.toml"
    toml.write_text(toml.read_text().replace("[budget]", f'hub_key = "{hub / "hub.pub"}"\n\n[budget]'))
    assert "NOT PRIVATE" in refused_untouched(bank, "--global-prior", hub / "hub.prior")


def test_a_prior_of_another_schema_is_refused(hub, bank):
    bank.schema["columns"][1]["max"] = 99
    bank.write_schema()
    words = ("--global-prior", hub / "hub.prior", "--hub-key", hub / "hub.pub", "--rehearsal", 1)
    assert "digest" in refused_untouched(bank, *words)


def test_a_prior_is_signed_by_a_closed_key_and_replaces_no_bundle(hub, tmp_path):
    bundle = hub / "north.distill"
    assert "--key FILE" in refusal(distill("train-global", bundle, "--global-prior", tmp_path / "hub.prior"))
    with pytest.raises(ConfigError, match="one of the bundles"):
        pooled([bundle], tmp_path / "m", bundle, generate_key(tmp_path / "k.pem"))
    with pytest.raises(ConfigError, match="folder does not exist"):
        pooled([bundle], tmp_path / "m", tmp_path / "no" / "hub.prior", generate_key(tmp_path / "l.pem"))
    (tmp_path / "k.pem").chmod(0o644)
    words = ("--global-prior", tmp_path / "hub.prior", "--key", tmp_path / "k.pem", "--out", tmp_path / "m")
    assert "can be read or changed by other users" in refusal(distill("train-global", bundle, *words))
    assert not (tmp_path / "hub.prior").exists()
