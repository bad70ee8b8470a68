"""`distill models`: the registry of trained models: what there is, what changed, which one is current, and making one again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.hub.trust import RegistryOption, registry_at
from cli.shared.output import JsonOption, ProjectOption, progress_console, reporting
from cli.shared.progress import progress_bars

if TYPE_CHECKING:
    from server_train.registry.registry import History
    from server_train.registry.version import Mark, Version

NumberArgument = Annotated[int, typer.Argument(help="Number of a version, as `list` prints it.", metavar="N", min=1)]
ReasonOption = Annotated[str, typer.Option(help="Why, for those who read the history.", metavar="TEXT")]

app = typer.Typer(help="The registry of models: every training run is a version.", no_args_is_help=True)


@app.command("list")
def list_versions(
    registry: RegistryOption = None, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """List all versions, and which one is current for its schema."""
    with reporting(as_json) as report:
        from cli.hub.models_view import versions_table

        store = registry_at(registry, project)
        history = store.history()
        payload = {"registry": store.path, "versions": [_summary(v, history) for v in history.versions]}
        report(payload, None if as_json else versions_table(history))


@app.command()
def show(
    number: NumberArgument,
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show one version: its bundles, weights, settings, figures, files, promotions, and the command that makes it again."""
    with reporting(as_json) as report:
        from cli.hub.models_view import version_page
        from server_train.hub.reproduction import command

        store = registry_at(registry, project)
        history = store.history()
        version = history.version(number)
        payload = {
            "registry": store.path,
            "digest": version.digest,
            **version.model_dump(mode="json"),
            "current": _is_current(version, history),
            "marks": [_mark(m) for m in history.marks if m.version == number],
            "reproduce": command(version),
        }
        report(payload, None if as_json else version_page(version, history, command(version)))


@app.command()
def diff(
    one: NumberArgument,
    two: Annotated[int, typer.Argument(help="Number of another version.", metavar="M", min=1)],
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions: bundles, weights, settings, figures, columns, software, files."""
    with reporting(as_json) as report:
        from cli.hub.models_view import difference_text
        from server_train.registry.diff import difference

        history = registry_at(registry, project).history()
        found = difference(history.version(one), history.version(two))
        report(found, difference_text(found))


@app.command()
def promote(
    number: NumberArgument,
    reason: ReasonOption = "",
    allow_rehearsal: Annotated[
        bool, typer.Option("--allow-rehearsal", help="Also a version that is NOT PRIVATE, for a trial.")
    ] = False,
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a version the current one of its schema: the one that `predict` and `evaluate` take from the registry."""
    with reporting(as_json) as report:
        mark = registry_at(registry, project).promote(number, reason=reason, allow_rehearsal=allow_rehearsal)
        report(_mark(mark), f"Version {mark.version} is current now, said {mark.by}.")


@app.command()
def rollback(
    reason: ReasonOption = "",
    schema: Annotated[
        str | None,
        typer.Option(help="Name or digest of the schema, where versions of several are promoted.", metavar="NAME"),
    ] = None,
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Go back to the version that was promoted before the current one. Both stay in the registry, and so does the history."""
    with reporting(as_json) as report:
        mark = registry_at(registry, project).rollback(schema=schema, reason=reason)
        report(_mark(mark), f"Version {mark.version} is current again, said {mark.by}.")


@app.command()
def export(
    number: NumberArgument,
    out: Annotated[Path, typer.Option(help="Folder for the model; an earlier model in it is replaced.", metavar="DIR")],
    onnx: Annotated[bool, typer.Option("--onnx", help="With model.onnx, also where it was trained without.")] = False,
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a version's files into a folder, byte by byte as they were made."""
    with reporting(as_json) as report:
        from server_train.models.folder import write_folder
        from server_train.models.model import ONNX
        from server_train.models.onnx_export import with_onnx

        files = registry_at(registry, project).files(number)
        if onnx and ONNX not in files:
            files = with_onnx(files)
        write_folder(files, out)
        report(
            {"version": number, "out": out, "files": sorted(files)},
            f"Wrote version {number} to {out}: {len(files)} files.",
        )


@app.command()
def verify(registry: RegistryOption = None, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Check every byte: the file, the chain of versions, each model's files, and what was promoted."""
    with reporting(as_json) as report:
        store = registry_at(registry, project)
        history = store.verify()
        newest = history.versions[-1].digest if history.versions else None
        payload = {
            "verified": True,
            "registry": store.path,
            "versions": len(history.versions),
            "marks": len(history.marks),
            "files": sum(len(v.files) for v in history.versions),
            "newest_digest": newest,
        }
        report(
            payload,
            f"{store.path}: all is as it was recorded, {len(history.versions)} version(s).\nnewest digest: {newest}",
        )


@app.command()
def reproduce(
    number: NumberArgument,
    bundles: Annotated[list[Path], typer.Argument(help="Its bundles, or folders that hold them.", metavar="BUNDLE...")],
    out: Annotated[Path | None, typer.Option(help="Keep the model that was made again there.", metavar="DIR")] = None,
    registry: RegistryOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Train a version again from its bundles and compare the weights, byte by byte; exit code 2 if they differ."""
    with reporting(as_json, interrupted="Nothing was registered.") as report:
        from cli.hub.train_global import STAGES
        from cli.shared.output import EXIT_REFUSED
        from server_train.hub.reproduction import reproduce as run

        version = registry_at(registry, project).history().version(number)
        with progress_bars(progress_console(quiet=as_json), STAGES, counted=True) as progress:
            result = run(version, bundles, out=out, progress=progress)
        changed = [f"{name} was {then}, is {now}" for name, (then, now) in result.software.items()]
        said = (
            f"Version {number} was made again: {', '.join(result.same)} the same, byte by byte."
            if not result.other
            else f"NOT the same as version {number}: {', '.join(result.other)}. Another processor or other libraries round differently."
        )
        report(result.as_dict(), "\n".join([said, *(f"software: {change}" for change in changed)]))
        if result.other:
            raise typer.Exit(EXIT_REFUSED)


def _summary(version: "Version", history: "History") -> dict[str, Any]:
    """One version as a line of the list."""
    record = version.record
    name, value = version.headline
    return {
        "number": version.number,
        "made": version.made,
        "made_by": version.made_by,
        "schema": record.schema_name,
        "schema_digest": record.schema_digest,
        "kind": record.kind,
        "institutions": [i.institution for i in record.inputs],
        "rows": record.recipe.get("rows"),
        "metric": {name: value} if name else {},
        "epsilon": {"disjoint": record.disjoint.epsilon, "overlapping": record.overlapping.epsilon},
        "rehearsal": record.rehearsal,
        "current": _is_current(version, history),
        "digest": version.digest,
    }


def _is_current(version: "Version", history: "History") -> bool:
    return history.current.get(version.record.schema_digest) == version.number


def _mark(mark: "Mark") -> dict[str, Any]:
    return {**mark.model_dump(mode="json"), "digest": mark.digest}
