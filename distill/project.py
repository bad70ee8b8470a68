"""A project: one data set at one institution, as its file `distill.toml` describes it, and what is done with it.

The file says where table, schema, ledger, key and output are, and the usual budget. Its paths are relative to its
folder; a `Project` holds absolute ones. The file holds no secret: the key stays in its own file. A project opens its
ledger and runs its releases with all that the file names, so that a caller says only what differs.
"""

import json
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.common import files
from distill.errors import ConfigError
from distill.privacy.budget import require_budget

if TYPE_CHECKING:
    from distill.common.compute import Device
    from distill.common.keys import SigningKey
    from distill.data.schema import Schema
    from distill.data.sources import Source
    from distill.exchange.levels import Level
    from distill.exchange.prior import GlobalPrior
    from distill.ledger import Ledger
    from distill.releases.evaluation import EvaluationReceipt, PublicModel
    from distill.releases.fit import Receipt
    from distill.synthesis.planning.plan import Plan
    from distill.synthesis.planning.shares import Shares

PROJECT_FILE = "distill.toml"
DEFAULT_EPSILON = 2.0
DEFAULT_DELTA = 1e-5
EVALUATION_FILE = "evaluation.dp.json"
LEDGER_FILE = "ledger.db"
KEY_FILE = "keys/operator.pem"
OFFICER_FILE = "keys/officer.pem"
# Each path in the file, and the attribute that holds it.
_PATHS = {"data": "data", "schema": "schema", "ledger": "ledger_file", "key": "key", "officer": "officer", "out": "out"}
_TEXTS = ("name", "dataset", *_PATHS)
_OPTIONAL_PATHS = {"hub_key": "hub_key"}
_NAME = re.compile(r"[^\W_][\w .-]{0,99}")
_DATASET = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Project:
    """One data set at one institution.

    Attributes:
        folder: That holds distill.toml; absolute, like all paths here.
        name: Of the institution or table; public, it goes into the bundle.
        dataset: Random id (32 hex digits) that ties ledger and bundles to this data set and says nothing about it.
        data: The private table, CSV or Parquet.
        schema: The public schema, JSON.
        ledger_file: The privacy ledger.
        key: The operator's signing key; reserves releases and signs bundles.
        officer: The privacy officer's signing key; grants. It need not be here: only its public half beside it is.
        out: Where `fit` puts the bundle.
        epsilon, delta: Budget of a release unless it is asked for with another one.
        hub_key: Public key of the hub whose global priors `fit` may use; None: none is known.
    """

    folder: Path
    name: str
    dataset: str
    data: Path
    schema: Path
    ledger_file: Path
    key: Path
    officer: Path
    out: Path
    epsilon: float = DEFAULT_EPSILON
    delta: float = DEFAULT_DELTA
    hub_key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a name, an id or a budget that cannot be used."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"name {self.name!r} must start with a letter or digit and hold only letters, digits, spaces, '_', '.' "
                "and '-', at most 100 of them: it names the bundle's file."
            )
        if not _DATASET.fullmatch(self.dataset):
            raise ConfigError(
                f"dataset must be 32 lower-case hex digits, as `distill init` draws, not {self.dataset!r}."
            )
        require_budget(self.epsilon, self.delta)

    @classmethod
    def open(cls, folder: Path | str) -> "Project":
        """Open the project in a folder: read its distill.toml.

        Raises:
            ConfigError: There is no such file, or a setting in it is wrong.
        """
        return _read(Path(folder))

    @classmethod
    def create(
        cls,
        folder: Path | str,
        *,
        data: Path | str,
        schema: Path | str,
        name: str | None = None,
        officer: Path | str | None = None,
        overwrite: bool = False,
    ) -> "Project":
        """Set up a project: distill.toml, and keys and an empty ledger where they are absent.

        Everything is checked before anything is written, and distill.toml comes last. An existing ledger is kept with
        its data-set id, existing keys too (one with a passphrase opens with DISTILL_KEY_PASSPHRASE).

        Args:
            folder: Made if absent.
            data: The private table; only its presence and its suffix are looked at.
            schema: The public schema; it must load, and may still be a draft.
            name: Public name of the institution; None: the folder's name.
            officer: Public key (PEM) of the privacy officer, who keeps the private half elsewhere; None: make a pair.
            overwrite: Replace an existing distill.toml.

        Raises:
            ConfigError: distill.toml is there already, or a setting is wrong.
            DataError, SchemaError, KeyFileError, LedgerError: The table, schema, key or ledger cannot be used.
        """
        brought = None if officer is None else Path(officer)
        return _create(Path(folder), Path(data), Path(schema), name, brought, overwrite=overwrite)

    def ledger(self) -> "Ledger":
        """Open the project's ledger.

        Raises:
            LedgerError, LedgerTamperedError: It is missing, of another data set, or does not verify.
        """
        from distill.ledger import open_ledger

        return open_ledger(self.ledger_file, dataset=self.dataset)

    def fit(
        self,
        data: "Source | str | None" = None,
        *,
        epsilon: float | None = None,
        delta: float | None = None,
        out: Path | str | None = None,
        purpose: str = "distill fit",
        level: "Level" = "default",
        institutions: int = 1,
        samples: int | None = None,
        shares: "Shares | Mapping[str, float] | None" = None,
        rows_per_unit: int = 1,
        prior: Path | str | None = None,
        rehearsal: int | None = None,
        overwrite: bool = False,
        device: "Device" = "auto",
        progress: Callable[[str, int, int], None] | None = None,
        announce: "Callable[[Plan], None] | None" = None,
    ) -> "Receipt":
        """Distil the private table into one signed bundle, and charge it to the project's ledger.

        Args:
            data: Path of the private table, or a pandas frame in its place, which is read and stays as it is; None: the
                project's table.
            epsilon, delta: Budget of this release; None: the project's.
            out: Where the bundle goes; None: the project's place.
            prior: The hub's global prior, a file signed with the project's `hub_key`; None: its own rows alone.
            purpose, level, institutions, samples, shares, rows_per_unit, rehearsal, overwrite, device: See
                `distill.FitRequest`.
            progress: Called with stage, steps done, steps in all.
            announce: Called with the finished plan before it is carried out.

        Raises:
            DistillError: As `distill.fit` raises it; `distill.errors` tells the kinds.
        """
        epsilon = self.epsilon if epsilon is None else epsilon
        delta = self.delta if delta is None else delta
        require_budget(epsilon, delta)  # before the heavy libraries are loaded
        from distill.common.keys import signing_key_of
        from distill.data.schema import load_schema
        from distill.releases.fit import FitRequest, fit
        from distill.releases.known_tables import state_folder
        from distill.synthesis.pipeline import silent

        schema = load_schema(self.schema)
        request = FitRequest(
            data=self._source(data),
            schema=schema,
            name=self.name,
            dataset=self.dataset,
            out=self.out if out is None else Path(out),
            epsilon=epsilon,
            delta=delta,
            purpose=purpose,
            level=level,
            institutions=institutions,
            samples=samples,
            shares=shares,
            rows_per_unit=rows_per_unit,
            rehearsal=rehearsal,
            overwrite=overwrite,
            device=device,
            known_tables=state_folder(self.folder),
            protected=(self.data,),
            prior=None if prior is None else self._prior(Path(prior), schema, rehearsal=rehearsal is not None),
        )
        ledger = self.ledger()
        return fit(request, ledger, signing_key_of(self.key), progress=progress or silent, announce=announce)

    def evaluate(
        self,
        model: "PublicModel",
        data: "Source | str | None" = None,
        *,
        epsilon: float,
        delta: float | None = None,
        out: Path | str | None = None,
        threshold: float = 0.5,
        costs: tuple[float, float] | None = None,
        purpose: str | None = None,
        rows_per_unit: int = 1,
        rehearsal: int | None = None,
        overwrite: bool = False,
    ) -> "EvaluationReceipt":
        """Release noisy figures of a model on the private table, and charge them to the project's ledger.

        Args:
            model: A public model of classes, as `server_train.load_model` gives one.
            data: Path of the private table, or a pandas frame in its place; None: the project's table.
            epsilon: Budget of this release.
            delta: Allows Gaussian noise; None: Laplace noise, which needs none, unless the ledger adds up by Renyi DP.
            out: Where the signed figures go; None: evaluation.dp.json in the project's folder.
            threshold: Of two classes: from which score on a row is taken for the last.
            costs: Of two classes: of a false positive and of a false negative.
            purpose: One line for the reader of the ledger; None: what it is.
            rows_per_unit, rehearsal, overwrite: See `distill.EvaluationRequest`.

        Raises:
            DistillError: As `distill.evaluate` raises it.
        """
        from distill.common.keys import signing_key_of
        from distill.privacy.budget import NO_DELTA
        from distill.releases.evaluation import EvaluationRequest, evaluate
        from distill.releases.known_tables import state_folder

        ledger = self.ledger()
        # Laplace noise needs no delta; where releases are added up as Renyi DP, the project's delta lets Gaussian noise
        # fit better.
        least = NO_DELTA if ledger.summary().order is None else self.delta
        request = EvaluationRequest(
            data=self._source(data),
            model=model,
            name=self.name,
            dataset=self.dataset,
            out=self.folder / EVALUATION_FILE if out is None else Path(out),
            epsilon=epsilon,
            delta=least if delta is None else delta,
            threshold=threshold,
            costs=costs,
            rows_per_unit=rows_per_unit,
            rehearsal=rehearsal,
            overwrite=overwrite,
            known_tables=state_folder(self.folder),
            protected=(self.data,),
            **({} if purpose is None else {"purpose": purpose}),
        )
        return evaluate(request, ledger, signing_key_of(self.key))

    def _source(self, data: "Source | str | None") -> "Source":
        """The table that is read: the one that was given, else the project's."""
        return self.data if data is None else Path(data) if isinstance(data, str) else data

    def _prior(self, path: Path, schema: "Schema", *, rehearsal: bool) -> "GlobalPrior":
        """The hub's global prior, verified against its key, which must be known from elsewhere."""
        from distill.common.keys import load_public_key
        from distill.exchange.prior import read_prior

        if self.hub_key is None:
            raise ConfigError(
                'whose global prior is it? Name the hub\'s public key: --hub-key KEY.pub, or hub_key = "KEY.pub" in '
                "distill.toml."
            )
        return read_prior(path, hub_key=load_public_key(self.hub_key), schema=schema, rehearsal=rehearsal)


def new_dataset_id() -> str:
    """Draw an id for a data set: 32 hex digits that say nothing about it."""
    return secrets.token_hex(16)


def _read(folder: Path) -> Project:
    """The project that `folder`/distill.toml describes."""
    path = folder / PROJECT_FILE
    try:
        settings = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"no {PROJECT_FILE} in {folder.absolute()}. Run `distill init --data FILE --schema FILE` there, "
            "or name the project's folder with --project DIR."
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    try:
        return _project(folder.resolve(), settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_project(project: Project, *, overwrite: bool = False) -> Path:
    """Write `project`'s distill.toml, whole or not at all, and return its path.

    Paths inside the folder (or beside it) are written relative to it, so that the folder can move.

    Raises:
        ConfigError: The file is there already and `overwrite` is not set, or a path cannot be written as text.
    """
    path = project.folder / PROJECT_FILE
    _require_free(project.folder, overwrite=overwrite)
    try:
        content = _toml(project).encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("a path of this project is not valid UTF-8, so TOML cannot hold it; rename it.") from None
    with files.wrapped("write", path, ConfigError):
        files.write_whole(path, content, overwrite=overwrite)
    return path


def _create(
    folder: Path, data: Path, schema: Path, name: str | None, officer: Path | None, *, overwrite: bool
) -> Project:
    """Check all, then write it: see `Project.create`."""
    from distill.common.keys import load_public_key, passphrase_from_environment
    from distill.data.schema import load_schema
    from distill.data.sources import check_file
    from distill.ledger import Member, acting_user, create_ledger, open_ledger

    folder = folder.resolve()
    _require_free(folder, overwrite=overwrite)
    check_file(data)
    unit = load_schema(schema).counted_unit
    name = name if name is not None else folder.name
    ledger, key, passphrase = folder / LEDGER_FILE, folder / KEY_FILE, passphrase_from_environment()
    brought = load_public_key(officer) if officer is not None else None
    known = open_ledger(ledger) if ledger.exists() else None
    project = Project(
        folder=folder,
        name=name,
        dataset=known.dataset if known else new_dataset_id(),
        data=data.absolute(),
        schema=schema.absolute(),
        ledger_file=ledger,
        key=key,
        officer=folder / OFFICER_FILE,
        out=folder / f"{name}.distill",
    )
    with files.wrapped("make the folder", folder, ConfigError):
        folder.mkdir(parents=True, exist_ok=True)
    signing = _pair_at(key, passphrase)
    public = _officer(project.officer, brought, passphrase)
    if known is None:
        members = [
            Member(role="operator", name=acting_user(), public_key=signing.public_hex),
            Member(role="officer", name="privacy officer", public_key=public),
        ]
        create_ledger(ledger, dataset=project.dataset, unit=unit, key=signing, members=members)
    write_project(project, overwrite=overwrite)
    return project


def _pair_at(path: Path, passphrase: bytes | None) -> "SigningKey":
    """The key at `path`, made if absent."""
    from distill.common.keys import generate_key, load_signing_key

    make = load_signing_key if path.exists() else generate_key
    return make(path, passphrase=passphrase)


def _officer(path: Path, brought: str | None, passphrase: bytes | None) -> str:
    """The officer's public key: the one that was brought, put beside the place of the private one, or a new pair's."""
    from distill.common.keys import load_public_key, public_path_of, write_public_key

    beside = public_path_of(path)
    if brought is None and (path.exists() or not beside.exists()):
        return _pair_at(path, passphrase).public_hex
    if brought is not None and not beside.exists():
        write_public_key(beside, brought)
    kept = load_public_key(beside)
    if brought is not None and kept != brought:
        raise ConfigError(f"{beside} holds another officer's key; remove it, or leave --officer out.")
    return kept


def _require_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is a file, or one that holds a project already."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the project.")
    if (folder / PROJECT_FILE).exists() and not overwrite:
        raise ConfigError(
            f"{folder / PROJECT_FILE} is there already and is kept. `distill init --force` replaces it "
            "(and keeps ledger and key)."
        )


def _project(folder: Path, settings: dict[str, Any]) -> Project:
    """The project that parsed TOML describes."""
    budget = settings.pop("budget", {})
    if not isinstance(budget, dict):
        raise ConfigError("budget must be a table: [budget], then epsilon and delta.")
    _refuse_unknown(settings, (*_TEXTS, *_OPTIONAL_PATHS), "setting")
    _refuse_unknown(budget, ("epsilon", "delta"), "setting in [budget]")
    missing = [key for key in _TEXTS if key not in settings]
    if missing:
        raise ConfigError(f"missing setting(s): {', '.join(missing)}. `distill init --force` writes a complete file.")
    optional = [key for key in _OPTIONAL_PATHS if key in settings]
    for key in (*_TEXTS, *optional):
        if not isinstance(settings[key], str) or not settings[key].strip():
            raise ConfigError(f"{key} must be a text in quotes that is not empty.")
    for key, value in budget.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"budget.{key} must be a number, not {value!r}.")
    # normpath, not resolve: a link that the operator chose stays a link, only "a/../b" is tidied.
    paths = {
        name: Path(os.path.normpath(folder / Path(settings[key]).expanduser()))
        for key, name in (_PATHS | _OPTIONAL_PATHS).items()
        if key in settings
    }
    numbers = {key: float(value) for key, value in budget.items()}
    return Project(folder=folder, name=settings["name"], dataset=settings["dataset"], **paths, **numbers)  # type: ignore[arg-type]


def _refuse_unknown(settings: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    """A misspelt setting must not be ignored."""
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ConfigError(f"unknown {what}: {', '.join(unknown)}. Known are {', '.join(known)}.")


def _toml(project: Project) -> str:
    """The file's text, with a word on each setting."""
    paths = {key: getattr(project, name) for key, name in (_PATHS | _OPTIONAL_PATHS).items()}
    shown = {key: _quoted(_relative(path, project.folder)) for key, path in paths.items() if path is not None}
    hub_key = (
        f"# The hub's public key: only its global priors are used.\nhub_key = {shown['hub_key']}\n\n"
        if project.hub_key
        else ""
    )
    return f"""\
# A distill project. Paths are relative to this file; every setting can be overridden on the command line.
name = {_quoted(project.name)}
# Random id of the data set: ledger and bundles carry it. Never change it, and never reuse it for other data.
dataset = {_quoted(project.dataset)}

# The private table (CSV or Parquet) and its public description (JSON).
data = {shown["data"]}
schema = {shown["schema"]}

# What was released and what is left: append-only. The operator's key signs releases and bundles: keep it secret.
ledger = {shown["ledger"]}
key = {shown["key"]}
# The privacy officer's key signs grants. Better kept elsewhere: then `distill ledger grant --key FILE` names it.
officer = {shown["officer"]}

# Where `distill fit` puts the bundle.
out = {shown["out"]}

{hub_key}# Budget of one release; `distill ledger grant` sets how much all releases together may spend.
[budget]
epsilon = {project.epsilon!r}
delta = {project.delta!r}
"""


def _relative(path: Path, folder: Path) -> str:
    """`path` seen from `folder` if they share a parent worth naming, else as it is."""
    if path.is_relative_to(folder.parent) and folder.parent != Path(folder.anchor):
        return Path(os.path.relpath(path, folder)).as_posix()
    return path.as_posix()


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's, which also wants DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
