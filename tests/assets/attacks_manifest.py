"""Attacks inside a properly signed manifest: its form, and claims that its events and the ledger do not bear out."""

from collections.abc import Callable
from typing import Any

from distill.common.canonical_json import canonical
from distill.errors import BundleClaimError, BundleManifestError, BundleSignatureError, BundleVersionError
from distill.ledger.entries.entry import chain_of
from distill.privacy.events import epsilon_of
from tests.assets.forge import House, attack, contents, edited, signed, signed_anew, with_text


@attack(BundleVersionError)
def newer_version(house: House) -> bytes:
    """Not an attack: a bundle from the future, with members and fields of its own."""
    manifest, files = contents(house.data)
    return signed(manifest | {"format_version": 4, "news": True}, files | {"extra.bin": b"new"}, house.key)


@attack(BundleVersionError)
def older_version(house: House) -> bytes:
    """Not an attack: a bundle of the format before."""
    manifest, files = contents(house.data)
    return signed(manifest | {"format_version": 2}, files, house.key)


# --- form -----------------------------------------------------------------------------------------------------------------


def respelt(house: House, old: bytes, new: bytes) -> bytes:
    """The good bundle with a piece of its manifest (where it stands last) spelt differently."""
    before, found, behind = canonical(contents(house.data)[0]).rpartition(old)
    if not found:
        raise ValueError(f"the manifest holds no {old!r}")
    return with_text(house.data, house.key, before + new + behind)


@attack(BundleManifestError)
def repeated_key(house: House) -> bytes:
    """A key is there twice, and readers may take either value."""
    return respelt(house, b'"rehearsal":false,"', b'"rehearsal":true,"rehearsal":false,"')


@attack(BundleManifestError)
def deep_nesting(house: House) -> bytes:
    """Lists two hundred thousand deep."""
    return with_text(house.data, house.key, b"[" * 200_000 + b"]" * 200_000)


@attack(BundleManifestError)
def deep_settings(house: House) -> bytes:
    """Settings of the generator five hundred lists deep, and the rest in order."""
    return respelt(house, b'"name":"soft"', b'"name":' + b"[" * 500 + b"]" * 500)


@attack(BundleManifestError)
def many_lists(house: House) -> bytes:
    """A million empty lists, each far larger in memory than in the file."""
    return with_text(house.data, house.key, b"[" + b"[]," * 349_000 + b"[]]")


@attack(BundleManifestError)
def not_a_number(house: House) -> bytes:
    """NaN where the number of rows stands."""
    return respelt(house, b'"noisy_rows":1234', b'"noisy_rows":NaN')


@attack(BundleManifestError)
def infinite_epsilon(house: House) -> bytes:
    """An epsilon of 1e999."""
    return respelt(house, b'"epsilon":1.5,"events"', b'"epsilon":1e999,"events"')


@attack(BundleManifestError)
def long_number(house: House) -> bytes:
    """A number of ten thousand digits."""
    return respelt(house, b'"noisy_rows":1234', b'"noisy_rows":' + b"9" * 10_000)


@attack(BundleManifestError)
def lone_surrogate(house: House) -> bytes:
    """A name that is no text."""
    return respelt(house, b"First Bank", b"\\ud800")


@attack(BundleManifestError)
def other_spelling(house: House) -> bytes:
    """The same values with a blank between them."""
    return respelt(house, b'"noisy_rows":1234', b'"noisy_rows": 1234')


@attack(BundleManifestError)
def not_json(house: House) -> bytes:
    """Bytes that are no JSON."""
    return with_text(house.data, house.key, b"\xff\xfe{")


@attack(BundleManifestError)
def not_an_object(house: House) -> bytes:
    """JSON that is a number."""
    return with_text(house.data, house.key, b"7")


@attack(BundleManifestError)
def unknown_field(house: House) -> bytes:
    """A field that manifests do not have."""
    return edited(house.data, house.key, lambda m: m.update(exec="rm -rf /"))


@attack(BundleManifestError)
def missing_field(house: House) -> bytes:
    """A manifest without privacy."""
    return edited(house.data, house.key, lambda m: m.pop("privacy"))


@attack(BundleManifestError)
def terminal_codes(house: House) -> bytes:
    """An institution whose name clears the reader's screen."""
    return edited(house.data, house.key, lambda m: m.update(institution="\x1b[2J\x1b[31mBank"))


@attack(BundleManifestError)
def version_as_text(house: House) -> bytes:
    """A version that is no number."""
    return edited(house.data, house.key, lambda m: m.update(format_version="3"))


@attack(BundleManifestError)
def wide_schema(house: House) -> bytes:
    """A schema of six thousand columns."""
    return edited(house.data, house.key, lambda m: m["schema"].update(columns=m["schema"]["columns"] * 1_000))


@attack(BundleManifestError)
def many_categories(house: House) -> bytes:
    """A column of a hundred thousand categories, all alike."""
    return edited(house.data, house.key, lambda m: m["schema"]["columns"][2].update(categories=["a"] * 100_000))


@attack(BundleManifestError)
def endless_steps(house: House) -> bytes:
    """Events of 10**12 steps, which would keep an accountant busy for years."""
    step = {"mechanism": "poisson_gaussian", "sampling_rate": 0.01, "count": 10**12}
    return edited(house.data, house.key, lambda m: m["privacy"]["events"][1].update(step))


# --- claims ---------------------------------------------------------------------------------------------------------------


@attack(BundleClaimError)
def epsilon_too_low(house: House) -> bytes:
    """It states a lower epsilon than its events give."""
    return edited(house.data, house.key, lambda m: m["privacy"].update(epsilon=0.2))


@attack(BundleClaimError)
def epsilon_a_little_too_low(house: House) -> bytes:
    """It states an epsilon a hundred-thousandth below what its events give."""

    def lower(m: dict[str, Any]) -> None:
        from distill.privacy.events import Event

        events = [Event.model_validate(e) for e in m["privacy"]["events"]]
        m["privacy"]["epsilon"] = epsilon_of(events, m["privacy"]["delta"]) * (1 - 1e-5)

    return edited(house.data, house.key, lower)


@attack(BundleClaimError)
def epsilon_over_the_reserved(house: House) -> bytes:
    """It states a higher epsilon than the ledger reserved."""
    return edited(house.data, house.key, lambda m: m["privacy"].update(epsilon=1.6))


@attack(BundleClaimError)
def event_removed(house: House) -> bytes:
    """It keeps quiet about a read of the table."""
    return edited(house.data, house.key, lambda m: m["privacy"]["events"].pop())


@attack(BundleClaimError)
def event_with_more_noise(house: House) -> bytes:
    """It claims ten times the noise that was reserved."""
    return edited(house.data, house.key, lambda m: m["privacy"]["events"][1].update(noise_multiplier=100.0))


@attack(BundleClaimError)
def other_dataset(house: House) -> bytes:
    """It names another data set than the ledger."""
    return edited(house.data, house.key, lambda m: m.update(dataset="e" * 32))


@attack(BundleClaimError)
def other_unit(house: House) -> bytes:
    """It claims to protect customers, where the ledger counts rows."""
    return edited(house.data, house.key, lambda m: m["privacy"].update(unit="customer"))


@attack(BundleClaimError)
def other_delta(house: House) -> bytes:
    """It claims a smaller delta than was reserved."""
    return edited(house.data, house.key, lambda m: m["privacy"].update(delta=1e-9))


@attack(BundleClaimError)
def rehearsal_mark_dropped(house: House) -> bytes:
    """A rehearsal, whose noise is known, poses as a release."""
    return edited(house.rehearsal, house.key, lambda m: m.update(rehearsal=False))


@attack(BundleClaimError)
def shares_over_one(house: House) -> bytes:
    """The classes' shares add up to two."""
    return edited(house.data, house.key, lambda m: m.update(class_prior=[1.0, 1.0]))


@attack(BundleClaimError)
def other_schema(house: House) -> bytes:
    """The schema is another than its digest says, so it would be pooled with bundles that it does not fit."""
    return edited(house.data, house.key, lambda m: m["schema"]["columns"][0].update(max=101.0))


@attack(BundleClaimError)
def unsigned_proof(house: House) -> bytes:
    """There are no ledger entries."""
    return edited(house.data, house.key, lambda m: m["ledger"].update(entries=[]))


@attack(BundleClaimError)
def proof_forged(house: House) -> bytes:
    """A ledger entry was changed after it was signed: a larger grant."""
    return edited(house.data, house.key, lambda m: body_of(m, "grant").update(epsilon=9.0))


@attack(BundleClaimError)
def proof_by_another_key(house: House) -> bytes:
    """The ledger entries are genuine, and another institution's."""
    borrowed = contents(house.strange)[0]["ledger"]
    return edited(house.data, house.key, lambda m: m.update(ledger=borrowed))


@attack(BundleClaimError)
def proof_of_another_dataset(house: House) -> bytes:
    """The ledger entries are genuine, and those of another data set of the same key."""
    borrowed = contents(house.elsewhere)[0]["ledger"]
    return edited(house.data, house.key, lambda m: m.update(ledger=borrowed))


@attack(BundleClaimError)
def proof_from_two_ledgers(house: House) -> bytes:
    """The grant is that of another data set's ledger."""
    borrowed = entry_of(contents(house.elsewhere)[0], "grant")
    return edited(house.data, house.key, lambda m: entry_of(m, "grant").update(borrowed))


@attack(BundleClaimError)
def proof_without_grant(house: House) -> bytes:
    """The grant is missing among the ledger entries."""
    return edited(house.data, house.key, lambda m: m["ledger"]["entries"].remove(entry_of(m, "grant")))


@attack(BundleClaimError)
def proof_out_of_order(house: House) -> bytes:
    """Two ledger entries changed places."""

    def swap(m: dict[str, Any]) -> None:
        m["ledger"]["entries"][1:3] = m["ledger"]["entries"][2:0:-1]

    return edited(house.data, house.key, swap)


@attack(BundleClaimError)
def proof_over_the_grant(house: House) -> bytes:
    """The owner of the key wrote a ledger that reserves more than was granted, and signed it anew."""
    return rewritten(house, lambda m: body_of(m, "grant").update(epsilon=0.5))


@attack(BundleClaimError)
def proof_with_a_cheap_lie(house: House) -> bytes:
    """Ledger and manifest agree that the events cost little, signed anew; they cost more."""

    def lie(m: dict[str, Any]) -> None:
        for event in (m["privacy"]["events"][1], body_of(m, "plan")["events"][0]):
            event["noise_multiplier"] = 1.0

    return rewritten(house, lie)


@attack(BundleClaimError)
def proof_planned_twice(house: House) -> bytes:
    """The ledger entries plan the release twice, signed anew."""

    def twice(m: dict[str, Any]) -> None:
        plan = entry_of(m, "plan")
        m["ledger"]["entries"].append(plan | {"sequence": plan["sequence"] + 1})

    return rewritten(house, twice)


@attack(BundleClaimError)
def proof_by_an_officer(house: House) -> bytes:
    """The reservation is signed by a key that may grant but not spend, signed anew."""

    def demoted(m: dict[str, Any]) -> None:
        members = body_of(m, "open")["members"]
        members[:] = [member for member in members if member["role"] == "officer"]

    return rewritten(house, demoted)


@attack(BundleClaimError)
def chain_cut_short(house: House) -> bytes:
    """The chain of the ledger ends before the plan, and so does its head."""

    def cut(m: dict[str, Any]) -> None:
        chain = m["ledger"]["chain"][:-1]
        m["ledger"].update(chain=chain, head=chain_of(chain)[-1])

    return edited(house.data, house.key, cut)


@attack(BundleClaimError)
def chain_of_another_ledger(house: House) -> bytes:
    """Chain and head are those of another data set; the entries are its own."""
    borrowed = contents(house.elsewhere)[0]["ledger"]
    return edited(house.data, house.key, lambda m: m["ledger"].update(chain=borrowed["chain"], head=borrowed["head"]))


@attack(BundleClaimError)
def chain_without_its_head(house: House) -> bytes:
    """The head is not the one that the chain leads to."""
    return edited(house.data, house.key, lambda m: m["ledger"].update(head="a" * 64))


@attack(BundleClaimError)
def chain_missing(house: House) -> bytes:
    """There is no chain."""
    return edited(house.data, house.key, lambda m: m["ledger"].update(chain=[]))


@attack(BundleManifestError)
def chain_of_text(house: House) -> bytes:
    """The chain holds something else than digests."""
    return edited(house.data, house.key, lambda m: m["ledger"]["chain"].append("no digest"))


@attack(BundleSignatureError)
def manifest_of_a_stranger(house: House) -> bytes:
    """The institution signs a manifest that names a stranger's key."""
    return edited(house.data, house.key, lambda m: m.update(public_key=house.stranger.public_hex))


def rewritten(house: House, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The good bundle with manifest and ledger entries changed by `edit`, all of it signed anew."""
    manifest, files = contents(house.data)
    edit(manifest)
    return signed(manifest | {"ledger": signed_anew(manifest["ledger"], house.key)}, files, house.key)


def entry_of(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    """The first ledger entry of this kind."""
    found: dict[str, Any] = next(e for e in manifest["ledger"]["entries"] if e["kind"] == kind)
    return found


def body_of(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    """What that entry says."""
    body: dict[str, Any] = entry_of(manifest, kind)["body"]
    return body
