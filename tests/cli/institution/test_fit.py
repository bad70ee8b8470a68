"""`distill plan` and `distill fit`: what their options ask the pipeline for, and how plan and receipt are shown."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from cli.institution.fit import STAGES
from cli.institution.plan_view import plan_payload, plan_table
from distill.common.keys import SigningKey, generate_key
from distill.data.schema import load_schema
from distill.ledger import Ledger, create_ledger
from distill.privacy.events import Event, epsilon_of
from distill.project import Project
from distill.releases import fit as pipeline
from distill.releases.fit import FitRequest, Receipt
from distill.synthesis.planning.plan import Plan, make_plan

SCHEMA = {
    "name": "loans",
    "target": "default",
    "columns": [
        {"name": "age", "kind": "integer", "min": 18, "max": 100},
        {"name": "home", "kind": "categorical", "categories": ["own", "rent"]},
        {"name": "default", "kind": "categorical", "categories": [0, 1]},
    ],
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def result_of(*arguments: object) -> dict[str, Any]:
    """The one JSON object on stdout; nothing is said beside it."""
    ran = run(*arguments, "--json")
    assert ran.exit_code == 0, ran.output
    assert ran.stderr == ""
    return dict(json.loads(ran.stdout))


def flat(text: str) -> str:
    """Text without the line breaks that a narrow terminal adds."""
    return " ".join(text.split())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with budget epsilon 1.5 and delta 1e-6."""
    data, schema = tmp_path / "loans.csv", tmp_path / "loans.schema.json"
    data.write_text("age,home,default\n" + "40,own,1\n" * 300)
    schema.write_text(json.dumps(SCHEMA))
    made = Project.create(tmp_path / "bank", data=data, schema=schema)
    path = made.folder / "distill.toml"
    path.write_text(path.read_text().replace("epsilon = 2.0", "epsilon = 1.5").replace("1e-05", "1e-06"))
    return made


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of the small schema at epsilon 2."""
    path = tmp_path_factory.mktemp("plan") / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return make_plan(load_schema(path), 5000, epsilon=2.0, delta=1e-5)


@dataclass
class Asked:
    """What the command asked the pipeline for."""

    calls: list[tuple[FitRequest, Ledger, SigningKey]] = field(default_factory=list)

    @property
    def request(self) -> FitRequest:
        return self.calls[-1][0]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> Asked:
    """A pipeline that goes through the motions: announces the plan, reports every stage, hands back a receipt."""
    calls = Asked()

    def fit(request: FitRequest, ledger: Ledger, key: SigningKey, *, progress: Any, announce: Any) -> Receipt:
        calls.calls.append((request, ledger, key))
        announce(plan)
        for stage in STAGES:
            progress(stage, 0, 10)
            progress(stage, 10, 10)
        return Receipt(
            bundle=request.out,
            digest="d" * 64,
            size=81_920,
            plan=plan,
            epsilon=plan.joint_epsilon,
            reads={e.name: e.count for e in plan.events},
            noisy_rows=5012,
            release="e" * 32,
            head="f" * 64,
            rehearsal=request.rehearsal is not None,
        )

    monkeypatch.setattr(pipeline, "fit", fit)
    return calls


# ---- fit ------------------------------------------------------------------------------------------------------------


def test_a_bare_fit_takes_everything_from_the_project(project, asked):
    said = result_of("fit", "--project", project.folder)
    request, ledger, key = asked.calls[0]
    assert (request.epsilon, request.delta) == (1.5, 1e-6)
    assert (request.data, request.out, request.name) == (project.data, project.out, "bank")
    assert request.dataset == ledger.dataset == project.dataset
    assert request.schema == load_schema(project.schema)
    assert request.rehearsal is None
    assert request.samples is None
    assert request.overwrite is False
    assert ledger.path == project.ledger_file
    assert ledger.summary().public_key == key.public_hex
    assert said["bundle"] == str(project.out)


def test_a_bare_fit_reads_the_project_of_the_current_folder(project, asked, monkeypatch):
    monkeypatch.chdir(project.folder)
    result_of("fit", "--epsilon", "2")
    assert asked.request.epsilon == 2
    assert asked.request.data == project.data


def test_every_setting_can_be_overridden_on_the_command_line(project, asked, tmp_path):
    schema, out = tmp_path / "other.json", tmp_path / "other.distill"
    schema.write_text(json.dumps(SCHEMA | {"name": "other"}))
    signer = generate_key(tmp_path / "other.pem")
    create_ledger(tmp_path / "other.db", dataset=project.dataset, unit="row", key=signer)
    options: dict[str, object] = {
        "epsilon": 0.75,
        "delta": 1e-7,
        "data": tmp_path / "other.parquet",
        "schema": schema,
        "ledger": tmp_path / "other.db",
        "key": tmp_path / "other.pem",
        "out": out,
        "samples": 123,
        "purpose": "board decision 7",
        "rehearsal": 9,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    result_of("fit", "--project", project.folder, *words, "--overwrite")
    request, ledger, key = asked.calls[0]
    assert (request.epsilon, request.delta, request.samples, request.rehearsal) == (0.75, 1e-7, 123, 9)
    assert (request.data, request.out, request.purpose) == (tmp_path / "other.parquet", out, "board decision 7")
    assert request.schema.name == "other"
    assert request.overwrite is True
    assert ledger.path == tmp_path / "other.db"
    assert key.public_hex == signer.public_hex


def test_with_json_the_receipt_is_one_object_and_nothing_else_is_said(project, asked, plan):
    said = result_of("fit", "--project", project.folder)
    assert said == {
        "bundle": str(project.out),
        "digest": "d" * 64,
        "bytes": 81_920,
        "epsilon": plan.joint_epsilon,
        "delta": 1e-5,
        "epsilon_reserved": 2.0,
        "noisy_rows": 5012,
        "reads": {e.name: e.count for e in plan.events},
        "release": "e" * 32,
        "ledger_head": "f" * 64,
        "rehearsal": False,
        "linked": [],
        "global_prior": None,
    }


def test_people_see_the_budget_then_every_stage_then_the_receipt(project, asked, plan):
    ran = run("fit", "--project", project.folder)
    assert ran.exit_code == 0, ran.output
    progress = ran.stderr
    assert progress.index("epsilon") < progress.index("0 size") < progress.index("6 select")
    for text in STAGES.values():
        assert text in progress
    receipt = flat(ran.stdout)
    assert receipt.startswith("privacy receipt")
    assert f"epsilon {plan.joint_epsilon:.4f} of 2 reserved, delta 1e-05" in receipt
    assert (
        f"{sum(e.count for e in plan.events)} reads of the table under {len(plan.events)} planned mechanisms" in receipt
    )
    assert "about 5,012 (noisy; the exact count was not released)" in receipt
    assert "82 kB" in receipt
    assert "distill ledger verify" in receipt
    assert "REHEARSAL" not in ran.output


def test_a_rehearsal_says_that_it_is_not_private(project, asked):
    assert "REHEARSAL, NOT PRIVATE" in run("fit", "--project", project.folder, "--rehearsal", 3).stdout
    assert result_of("fit", "--project", project.folder, "--rehearsal", 0)["rehearsal"] is True
    assert asked.request.rehearsal == 0


def test_ctrl_c_says_that_a_reservation_may_stand(project, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "fit", interrupted)
    ran = run("fit", "--project", project.folder)
    assert ran.exit_code == 130
    assert "its reservation stands" in flat(ran.stderr)
    assert "distill ledger show" in flat(ran.stderr)


def test_a_fit_without_a_project_says_how_to_make_one(tmp_path):
    ran = run("fit", "--project", tmp_path)
    assert ran.exit_code == 2
    assert "distill init --data FILE --schema FILE" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--samples", -1),
        ("--institutions", 0),
        ("--compress", "tiny"),
        ("--rehearsal", -1),
        ("--epsilon", "two"),
        ("--seed", 1),
        ("data.csv",),
    ],
)
def test_wrong_usage_is_refused_before_anything_happens(project, asked, words):
    ran = run("fit", "--project", project.folder, *words)
    assert ran.exit_code == 2
    assert asked.calls == []


# ---- plan -----------------------------------------------------------------------------------------------------------


def test_plan_shows_the_same_figures_as_the_events_give(project):
    said = result_of("plan", "--project", project.folder, "--rows", 3000)
    assert (said["epsilon"], said["delta"], said["assumed_rows"], said["noisy_size"]) == (1.5, 1e-6, 3000, 3000)
    events = [Event(**{k: v for k, v in e.items() if k != "epsilon_alone"}) for e in said["events"]]
    assert said["joint_epsilon"] == pytest.approx(epsilon_of(events, 1e-6))
    assert 1.4 < said["joint_epsilon"] <= 1.5
    assert said["joint_epsilon"] <= said["joint_epsilon_rdp"]
    assert said["joint_epsilon"] < sum(e["epsilon_alone"] for e in said["events"])
    assert events[0].name == "size"
    assert said["events"][0]["epsilon_alone"] == pytest.approx(0.015)


def test_plan_needs_no_project_where_schema_and_budget_are_given(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = result_of("plan", "--schema", project.schema, "--epsilon", 1, "--delta", "1e-5")
    assert (said["epsilon"], said["delta"], said["assumed_rows"]) == (1, 1e-5, 10_000)


def test_plan_reads_no_row_and_charges_nothing(project):
    project.data.unlink()
    before = project.ledger_file.read_bytes()
    ran = run("plan", "--project", project.folder, "--rows", 3000)
    assert ran.exit_code == 0, ran.output
    assert "No row was read and nothing was charged" in ran.stderr
    assert project.ledger_file.read_bytes() == before


@pytest.mark.parametrize("words", [("--epsilon", "0"), ("--epsilon", "nan"), ("--delta", "0.5"), ("--rows", "50")])
def test_plan_refuses_what_fit_would_refuse(project, words):
    ran = run("plan", "--project", project.folder, *words)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ")


@pytest.mark.parametrize("width", [80, 160])
def test_the_budget_table_names_every_mechanism_with_its_figures(plan, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO())
    console.print(plan_table(plan))
    text = console.file.getvalue()
    for heading in ("mechanism", "share", "noise", "cell", "rate", "steps", "epsilon alone", "what is read"):
        assert all(word in text for word in heading.split())
    lines = {e.name: next(line for line in text.splitlines() if e.name in line) for e in plan.events}
    for event, row in zip(plan.events, plan_payload(plan)["events"], strict=True):
        assert f"{event.noise_multiplier:.2f}" in lines[event.name]
        assert f" {event.count} " in lines[event.name]
        assert f"{row['epsilon_alone']:.3f}" in lines[event.name]
        if event.mechanism == "poisson_gaussian":
            assert f"{event.sampling_rate:.3f}" in lines[event.name]
    shares = [float(line.split("%")[0].split()[-1]) for line in lines.values()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert f"jointly: epsilon {plan.joint_epsilon:.4f} at delta 1e-05" in flat(text)
    assert "add or remove one unit" in flat(text)


def test_plan_says_why_for_every_choice(project):
    said = result_of("plan", "--project", project.folder, "--rows", 3000)
    names = [choice["name"] for choice in said["choices"]]
    assert names[:6] == [f"share {name}" for name in said["shares"]]
    assert {"bins", "pairs", "candidates", "steps represent", "steps discriminate", "batch"} <= set(names)
    assert all(set(choice) == {"name", "value", "why"} and choice["why"] for choice in said["choices"])
    shown = flat(run("plan", "--project", project.folder, "--rows", 3000).stdout)
    for choice in said["choices"]:
        assert choice["why"] in shown


def test_a_share_can_be_set_by_hand_in_plan_and_fit(project, asked):
    plain = result_of("plan", "--project", project.folder)
    words = ("--share", "pairs=0.8", "--share", "cluster = 0.05", "--project", project.folder)
    said = result_of("plan", *words)
    assert said["shares"] == plain["shares"] | {"pairs": 0.8, "cluster": 0.05}
    noise = {e["name"]: e["noise_multiplier"] for e in said["events"]}
    before = {e["name"]: e["noise_multiplier"] for e in plain["events"]}
    assert noise["relate.pairs"] < before["relate.pairs"]
    assert noise["encode.classes"] > before["encode.classes"]
    assert said["joint_epsilon"] <= said["epsilon"]
    result_of("fit", *words)
    assert asked.request.shares == {"pairs": 0.8, "cluster": 0.05}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["pair=0.3"], "there is no share 'pair'"),
        (["pairs"], "write NAME=VALUE"),
        (["pairs=0"], "must be a finite number above 0"),
        (["pairs=-1"], "must be a finite number above 0"),
        (["pairs=many"], "must be a finite number above 0"),
        (["pairs=inf"], "must be a finite number above 0"),
        (["pairs=0.1", "pairs=0.2"], "'pairs' is given twice"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "fit"])
def test_a_share_that_cannot_be_is_refused_with_the_names_there_are(project, asked, command, given, words):
    ran = run(command, "--project", project.folder, *(w for text in given for w in ("--share", text)))
    assert ran.exit_code == 2
    assert words in ran.stderr
    assert "The shares are bins, classes, pairs, represent, cluster, discriminate." in ran.stderr
