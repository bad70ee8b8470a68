"""`distill hub`: whose bundles the hub takes, what it has seen of their ledgers, and whether a bundle would be taken."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared.output import JsonOption, ProjectOption, reporting

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from server_train.intake.intake import Intake
    from server_train.intake.ledger_heads import SeenLedger
    from server_train.intake.store import HubStore
    from server_train.intake.trust import TrustedKey
    from server_train.registry.registry import Registry

HubOption = Annotated[
    Path | None,
    typer.Option("--hub", help="The hub's memory; else hub.db in the project's folder.", metavar="FILE"),
]
RegistryOption = Annotated[
    Path | None,
    typer.Option("--registry", help="The registry of models; else models.db in the project's folder.", metavar="FILE"),
]
TrustOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trust",
        help="Public key of an institution, trusted for this run beside those that the hub keeps; repeat for each. Bundles of "
        "others are refused.",
        metavar="KEY.pub",
    ),
]
UnknownOption = Annotated[
    bool,
    typer.Option("--allow-unknown-signers", help="Accept bundles of anybody, for a trial; those are not remembered."),
]
RehearsalOption = Annotated[bool, typer.Option("--allow-rehearsal", help="Accept bundles that are NOT PRIVATE.")]

app = typer.Typer(help="The hub's memory: trusted keys, ledgers seen, and checks of bundles.", no_args_is_help=True)
trust = typer.Typer(help="The institutions' public keys that the hub trusts.", no_args_is_help=True)
app.add_typer(trust, name="trust")


@trust.command()
def add(
    key: Annotated[Path, typer.Argument(help="Public key of an institution's operator.", metavar="KEY.pub")],
    name: Annotated[str | None, typer.Option(help="What to call its owner; else the file's name.")] = None,
    hub: HubOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Trust a public key from now on. It must have come by another way than the bundles."""
    with reporting(as_json) as report:
        from distill.common.keys import load_public_key
        from distill.ledger import acting_user

        store = hub_store(hub, project)
        kept = store.add_key(load_public_key(key), name=name or key.stem, by=acting_user())
        report(
            {"hub": store.path, **_key(kept)},
            f"Trusted as {kept.name!r} in {store.path}:\n  {kept.public_key}\n"
            "Compare it with what the institution's `distill keys` printed, by telephone or in person.",
        )


@trust.command("list")
def list_keys(hub: HubOption = None, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """List the trusted keys, and those that no longer are."""
    with reporting(as_json) as report:
        store = hub_store(hub, project)
        keys = store.all_keys()
        report({"hub": store.path, "keys": [_key(k) for k in keys]}, _keys(keys, store.path))


@trust.command()
def remove(
    which: Annotated[
        str, typer.Argument(help="Its name or its hex digits, as `list` prints them.", metavar="NAME|KEY")
    ],
    hub: HubOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Trust a key no longer. What it signed stays remembered; keys that it handed over to have to be removed themselves."""
    with reporting(as_json) as report:
        store = hub_store(hub, project)
        gone = store.remove_key(which)
        report(
            {"hub": store.path, "name": gone.name, "public_key": gone.public_key},
            f"No longer trusted: {gone.name!r}, key {gone.public_key}.",
        )


@app.command()
def heads(hub: HubOption = None, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """List what was seen of each data set's ledger: how many entries, its head, and every release."""
    with reporting(as_json) as report:
        store = hub_store(hub, project)
        ledgers = store.ledgers()
        report({"hub": store.path, "ledgers": [_ledger(seen) for seen in ledgers]}, _heads(ledgers, store.path))


@app.command()
def check(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle files, or folders of them.", metavar="BUNDLE...")],
    trust: TrustOption = None,
    allow_unknown_signers: UnknownOption = False,
    allow_rehearsal: RehearsalOption = False,
    remember: Annotated[
        bool, typer.Option("--remember", help="If all is well, remember the ledgers, as train-global does.")
    ] = False,
    hub: HubOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check bundles as train-global does, without training: contents, signers, and their ledgers against all that was seen."""
    with reporting(as_json) as report:
        from server_train.intake.admission import Admission
        from server_train.intake.intake import find_bundles, receive

        admission = Admission(
            trusted=public_keys(trust),
            hub=hub_store(hub, project),
            remember=remember,
            allow_unknown_signers=allow_unknown_signers,
            allow_rehearsal=allow_rehearsal,
        )
        intake = receive(find_bundles(bundles), admission)
        report(_checked(intake, remembered=remember), None if as_json else _verdict(intake, remembered=remember))


def hub_store(hub: Path | None, project: Path) -> "HubStore":
    """The hub's memory that was named, or the one in the project's folder."""
    from server_train.intake.store import HUB_FILE, HubStore

    return HubStore(hub if hub is not None else project / HUB_FILE)


def registry_at(registry: Path | None, project: Path) -> "Registry":
    """The registry that was named, or the one in the project's folder; for whoever runs this."""
    from server_train.registry.registry import REGISTRY_FILE, Registry

    return Registry(registry if registry is not None else project / REGISTRY_FILE)


def public_keys(files: list[Path] | None) -> frozenset[str]:
    """The keys (hex) in public key files."""
    from distill.common.keys import load_public_key

    return frozenset(load_public_key(path) for path in files or ())


def _key(key: "TrustedKey") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(key), "trusted": key.removed is None}


def _ledger(seen: "SeenLedger") -> dict[str, Any]:
    from dataclasses import asdict

    releases = [asdict(release) for release in seen.releases]
    return {"dataset": seen.dataset, "entries": seen.entries, "head": seen.head, "releases": releases}


def _keys(keys: "tuple[TrustedKey, ...]", path: Path) -> str:
    """Two lines a key, so that all of its digits can be read and compared."""
    lines = [f"{len([k for k in keys if k.removed is None])} trusted key(s) in {path}"]
    for key in keys:
        note = f"; {key.note}" if key.note else ""
        gone = f"; NO LONGER TRUSTED since {key.removed[:10]}" if key.removed else ""
        lines += [f"{key.name}: since {key.added[:10]}, by {key.added_by}{note}{gone}", f"  {key.public_key}"]
    return "\n".join(lines)


def _heads(ledgers: "tuple[SeenLedger, ...]", path: Path) -> "Group | str":
    from rich.console import Group

    if not ledgers:
        return f"Nothing was seen yet ({path}). `distill train-global` and `distill hub check --remember` remember what they see."
    parts: list[Any] = []
    for seen in ledgers:
        table = _plain_table("institution", "release", "entry", "epsilon", "so far", "seen", "file")
        for r in seen.releases:
            mark = f"{r.institution} (REHEARSAL)" if r.rehearsal else r.institution
            numbers = (str(r.sequence), f"{r.epsilon:.4g}", f"{r.epsilon_total:.4g}")
            table.add_row(*map(_text, (mark, r.release[:8], *numbers, r.seen[:10], r.file)))
        parts += [_text(f"data set {seen.dataset}: {seen.entries} ledger entries, head {seen.head}"), table]
    return Group(*parts)


def _checked(intake: "Intake", *, remembered: bool) -> dict[str, Any]:
    rows = [
        {
            "bundle": r.bundle.path,
            "institution": r.name,
            "dataset": r.manifest.dataset,
            "release": r.bundle.proven.release,
            "public_key": r.manifest.public_key,
            "vouched_by": r.voucher,
            "epsilon": r.bundle.proven.epsilon,
            "delta": r.bundle.proven.delta,
            "epsilon_total": r.bundle.proven.epsilon_total,
            "ledger_entries": len(r.bundle.proven.hashes),
            "ledger_head": r.manifest.ledger.head,
            "sha256": r.bundle.digest,
        }
        for r in intake.received
    ]
    return {"accepted": True, "remembered": remembered, "bundles": rows, "notes": list(intake.notes)}


def _verdict(intake: "Intake", *, remembered: bool) -> "Group":
    from rich.console import Group

    table = _plain_table("institution", "file", "epsilon", "so far", "entries", "signer")
    for r in intake.received:
        proven, signer = r.bundle.proven, f"{r.manifest.public_key[:8]}..."
        vouched = f"{signer} (NOT VOUCHED FOR)" if r.voucher is None else signer
        numbers = (f"{proven.epsilon:.4g}", f"{proven.epsilon_total:.4g}", str(len(proven.hashes)))
        table.add_row(*map(_text, (r.name, r.bundle.path.name, *numbers, vouched)))
    said = "All would be taken" + (", and they are remembered." if remembered else "; nothing was recorded.")
    return Group(_text(said), table, *(_text(f"note: {note}") for note in intake.notes))


def _plain_table(*columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _text(words: str) -> Any:
    """Other people's words as they are, without markup."""
    from rich.text import Text

    return Text(words)
