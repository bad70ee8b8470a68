"""`distill keys`: the pairs that sign the ledger and the bundles."""

from pathlib import Path
from typing import Annotated

import typer

from cli.shared.output import JsonOption, ProjectOption, project_at, reporting

app = typer.Typer(help="Make the key that signs ledger and bundles.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Make the key that signs ledger and bundles."""


@app.command()
def new(
    key: Annotated[Path | None, typer.Option(help="Private key to make; else the project's.", metavar="FILE")] = None,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase that protects it.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing pair; its ledgers take no more entries then.")
    ] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key pair: a private file (mode 0600) and beside it the public one (.pub).

    Without --passphrase, the environment variable DISTILL_KEY_PASSPHRASE protects the key if it is set.
    """
    with reporting(as_json) as report:
        from distill.common.keys import generate_key, passphrase_from_environment, public_path_of

        path = key if key is not None else project_at(project).key
        secret = _asked() if passphrase else passphrase_from_environment()
        made = generate_key(path, passphrase=secret, overwrite=overwrite)
        public = public_path_of(path)
        report(
            {"key": path, "public_key_file": public, "public_key": made.public_hex, "passphrase": secret is not None},
            f"Private key: {path} (keep it secret and keep a copy: nothing else can add to its ledgers)\n"
            f"Public key:  {public}\n"
            f"             {made.public_hex}\n"
            "Tell the hub the public key over a channel it trusts: bundles are checked against it.",
        )


def _asked() -> bytes:
    """A passphrase typed twice."""
    typed: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return typed.encode()
