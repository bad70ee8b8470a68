"""Devices: what is asked for is taken or refused, and a fit does the same work on a GPU as on the processor.

Tests under `gpu` run where torch finds a GPU. Without one, what can be checked is that no stage ties a tensor to the
processor: that the code says nothing about devices except at the two doors that `distill.common.compute` names.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.common.compute import choose_device, used
from distill.common.keys import generate_key
from distill.data.tables import write_table
from distill.errors import ConfigError
from distill.exchange.bundle import read_bundle
from distill.ledger import create_ledger
from distill.privacy.dpsgd import FINEST_BITS
from distill.privacy.record_gradients import Network, Records
from distill.releases import fit
from distill.synthesis.generator.one_hot import Layout
from distill.synthesis.pipeline import distil
from distill.synthesis.stages import represent
from distill.synthesis.weights import arrays_of, set_gradients
from tests.fakes.private_tables import EVERY_KIND, SHORT, door, every_kind, lattice_sum, plan_of, toy_generator

STAGES = Path(represent.__file__).parent
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def test_auto_takes_a_gpu_where_there_is_one_and_else_the_processor(monkeypatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device("auto").type == kind
        assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(("built", "reason"), [(None, "this build of torch has no CUDA"), ("12.8", "no usable GPU")])
def test_a_gpu_that_is_not_there_is_refused_with_the_mend(monkeypatch, built, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(ConfigError, match=f"device cuda was asked for, but .*{reason}.* Use --device cpu"):
        choose_device("cuda")


def test_new_tensors_are_made_on_the_device_in_use_and_only_inside_the_block():
    """`meta` stands in for a GPU: it holds no values, but knows where it is."""
    with used(torch.device("meta")):
        assert torch.zeros(2).device.type == "meta"
        assert torch.as_tensor(np.zeros(2)).device.type == "meta"
        assert torch.nn.Linear(2, 2).weight.device.type == "meta"
    with used(torch.device("cpu")):
        assert torch.zeros(2).device.type == "cpu"
    assert torch.zeros(2).device.type == "cpu"


def test_one_hot_rows_stand_where_their_codes_do():
    layout = Layout((3, 2), 2)
    codes = torch.zeros(4, 3, dtype=torch.int64, device="meta")
    rows = layout.one_hot(codes)
    assert (rows.device.type, rows.shape) == ("meta", (4, 7))
    with used(torch.device("meta")):  # drawing from a finished generator stays on the processor, whatever is in use
        assert layout.one_hot(torch.zeros(4, 3, dtype=torch.int64, device="cpu")).device.type == "cpu"
        drawn = layout.draw(torch.zeros(4, 5, device="cpu"), np.random.default_rng(0))
        assert drawn.device.type == "cpu"


@pytest.mark.parametrize("module", sorted(p.name for p in STAGES.glob("*.py")))
def test_no_stage_ties_a_tensor_to_the_processor(module):
    """`from_numpy`, `.numpy()` and `.cpu()` work on the processor only, or hide that a tensor was elsewhere."""
    for node in ast.walk(ast.parse((STAGES / module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        place = f"{module}:{node.lineno}"
        assert node.func.attr not in ("from_numpy", "cpu", "cuda", "to"), f"{place}: use torch.as_tensor"
        if node.func.attr == "numpy":
            assert [k.arg for k in node.keywords] == ["force"], f"{place}: use .numpy(force=True)"


@gpu
def test_a_whole_fit_runs_on_the_gpu(monkeypatch):
    """With its networks and candidates there, its reads as planned, and finite numbers in plain arrays at the end."""
    seen = set()
    made = represent.Autoencoder.step

    def watched(self, *arguments, **named):
        seen.update(p.device.type for layer in self._layers for p in layer.parameters())
        return made(self, *arguments, **named)

    monkeypatch.setattr(represent.Autoencoder, "step", watched)
    plan = plan_of(EVERY_KIND, 2000, steps=4)
    table = door(every_kind(2000, 0), EVERY_KIND, plan)
    with used(choose_device("cuda")):
        distilled = distil(table, plan, np.random.default_rng(0), effort=SHORT)
    assert seen == {"cuda"}
    assert table.reads == {e.name: e.count for e in plan.events}
    generator = distilled.generator
    assert np.isfinite(generator.logits).all()
    assert np.isfinite(generator.head[0]).all()
    assert len(generator.draw(500, np.random.default_rng(1))) == 500


@gpu
def test_clipped_gradient_sums_are_the_same_on_both_devices():
    """The same weights and rows on both: weights that went to a GPU come back, and the door adds up what it did before."""
    rng = np.random.default_rng(0)
    weight, labels, sums = rng.normal(0, 1, (3, 8)), rng.integers(0, 3, 500), []
    records = Records(None, rng.normal(0, 4, (500, 8)), labels)
    for name in ("cpu", "cuda"):
        with used(choose_device(name)):
            layer = torch.nn.Linear(8, 3)
            with torch.no_grad():
                layer.weight.copy_(torch.as_tensor(weight))
                layer.bias.zero_()
            sums.append(lattice_sum(Network((arrays_of(layer),), loss="classes", clip=0.5), records))
            set_gradients([layer], sums[-1] * 2.0**-FINEST_BITS)
            assert layer.weight.grad.device.type == name
    np.testing.assert_array_equal(sums[0], sums[1])


@gpu
def test_a_request_on_the_gpu_is_kept_from_end_to_end(monkeypatch, tmp_path):
    """`--device cuda` reaches the stages through the pipeline, and the bundle reads back."""
    seen = set()
    made = represent.Autoencoder.__init__

    def watched(self, *arguments):
        made(self, *arguments)
        seen.add(self.encode_1.weight.device.type)

    monkeypatch.setattr(represent.Autoencoder, "__init__", watched)
    write_table(every_kind(1500, 0), tmp_path / "table.parquet")
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset="ab" * 16, unit="row", key=key)
    ledger.grant(epsilon=2.0, delta=1e-5, reason="test", actor="officer", key=key)
    request = fit.FitRequest(
        data=tmp_path / "table.parquet",
        schema=EVERY_KIND,
        name="bank",
        dataset=ledger.dataset,
        out=tmp_path / "out.distill",
        epsilon=2.0,
        delta=1e-5,
        device="cuda",
        effort=SHORT,
    )
    fit.fit(request, ledger, key)
    assert seen == {"cuda"}
    assert read_bundle(request.out, key=key.public_hex).manifest.noisy_rows > 0


def test_a_finished_generator_draws_the_same_whatever_device_is_in_use():
    """Selection runs while a GPU is in use, on arrays that have left it."""
    generator = toy_generator()
    plain = generator.draw_codes(300, np.random.default_rng(0))
    with used(torch.device("meta")):
        np.testing.assert_array_equal(generator.draw_codes(300, np.random.default_rng(0)), plain)


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_charged(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    key = generate_key(tmp_path / "key.pem")
    ledger = create_ledger(tmp_path / "ledger.db", dataset="ab" * 16, unit="row", key=key)
    ledger.grant(epsilon=2.0, delta=1e-5, reason="test", actor="officer", key=key)
    write_table(every_kind(300, 0), tmp_path / "table.parquet")
    request = fit.FitRequest(
        data=tmp_path / "table.parquet",
        schema=EVERY_KIND,
        name="bank",
        dataset=ledger.dataset,
        out=tmp_path / "out.distill",
        epsilon=1.0,
        delta=1e-6,
        device="cuda",
    )
    with pytest.raises(ConfigError, match="device cuda was asked for"):
        fit.fit(request, ledger, key)
    assert ledger.summary().spent_epsilon == 0
