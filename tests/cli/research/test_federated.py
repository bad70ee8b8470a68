"""federated serve and join by the words a person types: bad input at once, and one whole run with TLS over loopback."""

import datetime
import ipaddress
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner, Result

from cli.app import app
from distill.data.demo import BANKS, bank_table, demo_schema
from distill.data.tables import write_table
from server_train.models.model import load_model

SCHEMA = demo_schema()


def rows(count: int, seed: int):
    return bank_table(BANKS[seed % 3], rows=count, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema, another one, two clients' tables, test rows."""
    place = tmp_path_factory.mktemp("federated")
    (place / "schema.json").write_text(SCHEMA.model_dump_json(exclude_none=True), encoding="utf-8")
    other = SCHEMA.model_copy(update={"columns": SCHEMA.columns[1:]})
    (place / "other.json").write_text(other.model_dump_json(exclude_none=True), encoding="utf-8")
    for i in range(2):
        write_table(rows(300, i), place / f"{i}.csv")
    write_table(rows(300, 1).drop(columns=[SCHEMA.columns[0].name]), place / "other.csv")
    write_table(rows(400, 7), place / "test.csv")
    return place


def serve_words(folder: Path, **changes: object) -> list[str]:
    return _words("serve", {"clients": 2, "schema": folder / "schema.json", "test": folder / "test.csv"} | changes)


def join_words(folder: Path, number: int, **changes: object) -> list[str]:
    given = {"number": number, "schema": folder / "schema.json", "data": folder / f"{number}.csv", **changes}
    return _words("join", given)


def _words(command: str, given: dict[str, object]) -> list[str]:
    words = [("--" + name.replace("_", "-"), str(value)) for name, value in given.items()]
    return ["federated", command, *(word for pair in words for word in pair)]


def call(words: list[str]) -> Result:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": "8080"}, "'8080' is no address"),
        ({"strategy": "none"}, "no strategy 'none'"),
        ({"option": "mu"}, "must be written NAME=VALUE"),
        ({"option": "mu=1"}, "has no option 'mu'"),
        ({"rounds": 0}, "rounds"),
        ({"participation": 0}, "participation"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"deadline": -1}, "deadline"),
        ({"compression": "zip"}, "no compression 'zip'"),
        ({"scaling": "none"}, "scaling must be one of bounds, sketch"),
        ({"wait": 0}, "wait"),
        ({"certificate": "hub.pem"}, "TLS needs both"),
        ({"wire_port": 65_535}, "no 2 ports follow 65535"),
        ({"schema": "absent.json"}, "absent.json"),
        ({"test": "absent.csv"}, "absent.csv"),
        ({"certificate": "absent.pem", "key": "absent.pem"}, "cannot read absent.pem"),
    ],
)
def test_a_server_refuses_what_cannot_work_before_it_listens(folder, changes, words):
    done = call(serve_words(folder, **changes))
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_server_says_which_clients_did_not_come(folder, tmp_path):
    done = call(serve_words(folder, address=f"127.0.0.1:{free_ports(1)}", wait=0.2, out=tmp_path / "out"))
    assert done.exit_code == 2
    assert "2 of 2 clients did not join within 0.2 seconds: 0, 1." in done.stderr


def test_a_client_says_where_no_server_answers(folder):
    address = f"127.0.0.1:{free_ports(1)}"
    done = call(join_words(folder, 0, address=address, wait=0.1))
    assert done.exit_code == 2
    assert f"no server answers at {address} within 0.1 seconds" in done.stderr


@pytest.mark.parametrize("words", [["serve"], ["join", "--wait", "0.1"]])
def test_without_flower_both_commands_say_how_to_install_it(folder, words, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("server_train.federated.flower") or n.split(".")[0] == "flwr"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flwr", None)
    given = serve_words(folder) if words == ["serve"] else join_words(folder, 0, wait=0.1)
    done = call(given)
    assert done.exit_code == 2
    assert "Flower is not installed" in done.stderr
    assert "pip install 'distill[flower]'" in done.stderr


def test_help_shows_brackets_as_they_are():
    help_text = call(["federated", "serve", "--help"]).stdout
    assert "[default: 127.0.0.1:8080]" in help_text
    assert "\\[" not in help_text


def free_ports(count: int) -> int:
    """The first of as many free ports in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            first = found.getsockname()[1]
        opened = []
        try:
            opened += [socket.create_server(("127.0.0.1", first + i)) for i in range(count)]
            return first
        except OSError:
            continue
        finally:
            for one in opened:
                one.close()


def certificate(folder: Path) -> dict[str, Path]:
    """A self-signed certificate of this machine for an hour, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / "hub.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "hub.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    return {"certificate": folder / "hub.pem", "key": folder / "hub.key"}


def start(words: list[str]) -> "subprocess.Popen[str]":
    code = "from cli.app import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_server_and_its_clients_train_a_model_with_tls(folder, tmp_path):
    """Also two who must not take part: one with another schema, one who does not speak TLS."""
    tls = certificate(tmp_path)
    port = free_ports(3)
    server = start(
        [
            *serve_words(
                folder, address=f"127.0.0.1:{port}", out=tmp_path / "out", rounds=3, strategy="scaffold", **tls
            ),
            *("--scaling", "sketch", "--wire-port", str(port + 1), "--wait", "300", "--json"),
        ]
    )
    root = {"certificate": tls["certificate"], "wait": 120}
    stranger = {"schema": folder / "other.json", "data": folder / "other.csv"}
    refused = start(join_words(folder, 0, address=f"127.0.0.1:{port}", **root, **stranger))
    plain = start(join_words(folder, 0, address=f"127.0.0.1:{port}", wait=120))
    ends = {one: (*one.communicate(timeout=200), one.returncode) for one in (refused, plain)}
    clients = [
        start([*join_words(folder, i, address=f"127.0.0.1:{port + 1 + i}", **root), "--allow-sketch", "--json"])
        for i in range(2)
    ]
    ends |= {one: (*one.communicate(timeout=300), one.returncode) for one in (*clients, server)}

    assert ends[refused][2] == 2
    assert "refuses client 0: its schema is not the server's" in ends[refused][1]
    assert ends[plain][2] == 2
    assert "Either both sides use a certificate or neither does" in ends[plain][1]
    assert [ends[one][1:] for one in (*clients, server)] == [("", 0)] * 3
    result = json.loads(ends[server][0])
    for i, one in enumerate(clients):
        heard = json.loads(ends[one][0])
        line = result["clients"][i]
        assert heard["trainings"] == 3
        assert heard["down"] == line["down"] + line["setup_down"] < line["wire_down"]
        assert heard["up"] == line["up"] + line["setup_up"] < line["wire_up"]
    assert result["rounds"] == 3
    model = load_model(tmp_path / "out")
    assert model.card.rehearsal
    evaluated = call(["evaluate", str(tmp_path / "out"), str(folder / "test.csv"), "--json"])
    assert json.loads(evaluated.stdout)["roc_auc"] == pytest.approx(result["roc_auc"], abs=1e-6)
    table = (tmp_path / "out" / "rounds.csv").read_text().splitlines()
    assert len(table) == 5
    assert [one["participants"] for one in json.loads((tmp_path / "out" / "federated.json").read_text())["rounds"]] == [
        [],
        [0, 1],
        [0, 1],
        [0, 1],
    ]
