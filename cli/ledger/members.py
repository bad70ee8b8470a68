"""`distill ledger enrol` and `retire`: who may grant and who may spend; `distill keys rotate`: a key hands over to a new one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.ledger.books import ActorOption, LedgerOption, OfficerKeyOption, ReasonOption, app, officer_of, opened_ledger
from cli.shared.output import JsonOption, ProjectOption, project_at, reporting

if TYPE_CHECKING:
    from distill.ledger import LedgerSummary

RoleOption = Annotated[Literal["officer", "operator"], typer.Option(help="An officer grants, an operator spends.")]


@app.command()
def enrol(
    public_key: Annotated[Path, typer.Argument(help="Public key of the new member.", metavar="KEY.pub")],
    role: RoleOption,
    name: Annotated[str, typer.Option(help="Who it is, one line.")],
    reason: ReasonOption,
    actor: ActorOption = None,
    ledger: LedgerOption = None,
    key: OfficerKeyOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Let a further officer or operator sign in this ledger, by an officer's signature."""
    with reporting(as_json) as report:
        from distill.common.keys import load_public_key
        from distill.ledger import Member

        opened, who, signer = officer_of(ledger, project, key, actor)
        member = Member(role=role, name=name, public_key=load_public_key(public_key))
        entry = opened.enrol(member, reason=reason, actor=who, key=signer)
        report(*_members(entry.sequence, f"Enrolled {role} {name}", opened.summary()))


@app.command()
def retire(
    public_key: Annotated[
        Path, typer.Argument(help="Public key that may no longer sign in this role.", metavar="KEY.pub")
    ],
    role: RoleOption,
    reason: ReasonOption,
    actor: ActorOption = None,
    ledger: LedgerOption = None,
    key: OfficerKeyOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take a role from a key, by an officer's signature. What it signed stays."""
    with reporting(as_json) as report:
        from distill.common.keys import load_public_key

        opened, who, signer = officer_of(ledger, project, key, actor)
        gone = load_public_key(public_key)
        entry = opened.retire(role, gone, reason=reason, actor=who, key=signer)
        report(*_members(entry.sequence, f"Retired {role} {gone[:16]}...", opened.summary()))


def rotate(
    role: RoleOption = "operator",
    reason: Annotated[str, typer.Option(help="Why, in one line; it stays in the ledger.")] = "rotation",
    actor: ActorOption = None,
    ledger: LedgerOption = None,
    key: Annotated[
        Path | None, typer.Option(help="Private key to replace; else the project's.", metavar="FILE")
    ] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Replace a signing key by a new one; both sign the handover in the ledger.

    The new pair takes the old one's place; the old files are kept beside it under a name with `retired`. If this is cut short,
    the same command goes on where it stopped. A passphrase in DISTILL_KEY_PASSPHRASE opens the old key and protects the new one.
    """
    with reporting(as_json) as report:
        from distill.common.keys import passphrase_from_environment
        from distill.ledger import acting_user
        from distill.ledger.key_rotation import rotate_key

        opened = opened_ledger(ledger, project)
        if key is None:
            settings = project_at(project)
            key = settings.officer if role == "officer" else settings.key
        done = rotate_key(
            opened, key, reason=reason, actor=actor or acting_user(), passphrase=passphrase_from_environment()
        )
        report(
            {"key": key, "public_key": done.public_hex, "replaced": done.replaced, "kept_as": done.kept},
            f"{key} now holds a new key: {done.public_hex}\n"
            f"It takes over from {done.replaced}, which is kept as {done.kept}.\n"
            "Tell whoever verifies your signatures the new public key. The hub takes the handover from your next bundle.",
        )


def _members(sequence: int, done: str, summary: "LedgerSummary") -> tuple[dict[str, Any], str]:
    """What an entry left of officers and operators, as JSON and for people."""
    members = [m.model_dump() for m in summary.members]
    lines = [f"  {m.role:<9} {m.name}  {m.public_key}" for m in summary.members]
    return {"entry": sequence, "members": members}, "\n".join([f"{done}. Members now:", *lines])
