import numpy as np
import pytest
import torch

from server_train.comparison.runs.scaling import prepare
from server_train.federated.local.mlp import Mlp
from server_train.federated.messages.codec import encode
from server_train.federated.messages.sketches import GRID, answer, merge, mixture_quantiles, one_hot, sketch
from server_train.models.features import Encoder, fit_encoder
from server_train.models.model import network_for
from tests.fakes.comparisons import SCHEMA, canonical, dealt


def test_one_client_gets_the_curves_of_its_own_rows():
    frame = canonical(500)
    merged, own = merge(SCHEMA, [sketch(SCHEMA, frame)]), fit_encoder(SCHEMA, frame).curves
    for name, curve in own.items():
        np.testing.assert_allclose(merged[name].ranks, curve.ranks, atol=1e-6)
        np.testing.assert_allclose(merged[name].knots, curve.knots, rtol=1e-6)
        assert merged[name].mean == pytest.approx(curve.mean, rel=1e-6)
        assert merged[name].spread == pytest.approx(curve.spread, rel=1e-5)


def test_a_mixture_has_the_quantiles_of_the_pooled_rows(seed):
    """Parts of unlike size and place, one with ties; 65 quantiles each leave an error of about one rank step."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(0, 1, 6000), rng.normal(5, 2, 2000), np.repeat(3.0, 1000)]
    pooled = np.concatenate(parts)
    got = mixture_quantiles([np.quantile(p, GRID) for p in parts], [len(p) for p in parts])
    assert (np.diff(got) >= 0).all()
    assert got[0] == pooled.min()
    assert got[-1] == pooled.max()
    ranks = np.searchsorted(np.sort(pooled), got[1:-1], side="right") / len(pooled)
    below = np.searchsorted(np.sort(pooled), got[1:-1], side="left") / len(pooled)
    assert (np.maximum(below - GRID[1:-1], GRID[1:-1] - ranks) < 1 / 64).all()


def test_a_part_of_no_weight_says_nothing():
    alone = np.linspace(0, 1, 65) ** 2
    np.testing.assert_array_equal(mixture_quantiles([alone, alone + 7], [3.0, 0.0]), alone)


def test_mean_and_spread_are_those_of_all_rows_together():
    frames = [canonical(400, bank=0), canonical(150, seed=1, bank=2)]
    merged = merge(SCHEMA, [sketch(SCHEMA, f) for f in frames])
    for name in ("income", "utilisation"):
        values = np.concatenate([f[name].dropna().to_numpy() for f in frames])
        assert merged[name].mean == pytest.approx(values.mean(), rel=1e-5)
        assert merged[name].spread == pytest.approx(values.std(), rel=1e-4)


def test_a_column_that_nobody_knows_is_scaled_by_its_public_bounds():
    frame = canonical(50).assign(utilisation=np.nan)
    curve = merge(SCHEMA, [sketch(SCHEMA, frame)])["utilisation"]
    assert (curve.knots[0], curve.knots[-1]) == (0.0, 1.5)
    assert Encoder(SCHEMA, merge(SCHEMA, [sketch(SCHEMA, frame)])).encode(frame).dense.shape == (50, 16)


def test_the_baselines_network_is_the_hubs_network():
    """Same number of weights, and the same logits when the hub's weights are laid flat."""
    frame = canonical(40)
    encoder = fit_encoder(SCHEMA, frame)
    inputs = encoder.encode(frame)
    network = network_for(encoder, (64, 32), classes=len(encoder.schema.classes))
    network.initialise(torch.Generator().manual_seed(0), inputs=9, prior=torch.tensor([0.8, 0.2]))
    x = one_hot(inputs, encoder.n_codes)
    model = Mlp([x.shape[1], 64, 32, 2])
    assert model.size == sum(p.numel() for p in network.parameters())
    first = [torch.cat([network.dense, network.table]), network.bias]
    rest = [p for pair in zip(network.weights, network.biases, strict=True) for p in pair]
    flat = torch.cat([p.detach().ravel() for p in (*first, *rest)]).numpy()
    wanted = network(torch.from_numpy(inputs.dense), torch.from_numpy(inputs.codes)).detach().numpy()
    np.testing.assert_allclose(model.logits(flat, x), wanted, atol=1e-4)


def test_every_row_has_one_category_a_column():
    frame = canonical(30)
    encoder = fit_encoder(SCHEMA, frame)
    x = one_hot(encoder.encode(frame), encoder.n_codes)
    assert x.dtype == np.float32
    assert x.shape == (30, encoder.n_dense + encoder.n_codes)
    np.testing.assert_array_equal(x[:, encoder.n_dense :].sum(axis=1), len(encoder.categoricals))


def test_set_up_counts_both_messages_and_tells_the_classes(tmp_path):
    rows = dealt(tmp_path, clients=2)
    prepared = prepare(rows)
    frames = list(rows.clients.values())
    sketches = [sketch(SCHEMA, f) for f in frames]
    assert prepared.up == tuple(len(encode(s)) for s in sketches)
    assert prepared.down == (len(encode(answer(merge(SCHEMA, sketches)))),) * 2
    assert [len(y) for y in prepared.y] == [len(f) for f in frames]
    bad = sum((f["default"].astype(str) == "1").sum() for f in frames)
    np.testing.assert_allclose(prepared.prior, [(480 - bad + 1) / 482, (bad + 1) / 482])
