"""Denoising: nearer to a planted truth than the noisy block is, and independence where there is only noise."""

import numpy as np
import pytest

from distill.synthesis.statistics.denoising import shrink_classes, shrink_low_rank, signal_portion


def planted(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Independent shares, and shares with a rank-one dependence on top."""
    first, second = rng.dirichlet(np.full(shape[0], 5.0)), rng.dirichlet(np.full(shape[1], 5.0))
    independent = np.outer(first, second)
    tilt = [rng.normal(size=k) for k in shape]
    left = first * (tilt[0] - first @ tilt[0])
    right = second * (tilt[1] - second @ tilt[1])
    return independent, independent + strength * np.outer(left, right)


@pytest.mark.parametrize("shape", [(20, 20), (8, 30), (30, 5)])
@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_shrinking_brings_a_planted_dependence_nearer(shape, strength, seed):
    """Mean squared error over 30 blocks, at noise from far below to far above the dependence."""
    for noise in (0.1, 1.0, 5.0):
        rng = np.random.default_rng(seed)
        before = after = flat = 0.0
        for _ in range(30):
            independent, truth = planted(rng, shape, strength)
            stddev = noise * np.abs(truth - independent).mean()
            block = truth + rng.normal(0, stddev, shape)
            before += np.square(block - truth).sum()
            after += np.square(shrink_low_rank(block, independent, stddev) - truth).sum()
            flat += np.square(independent - truth).sum()
        assert after < 0.75 * before
        assert after < 1.1 * flat  # nor is it worse than saying nothing


@pytest.mark.parametrize("shape", [(20, 20), (8, 30), (2, 2)])
def test_pure_noise_becomes_independence(shape, seed):
    rng = np.random.default_rng(seed)
    left = total = 0.0
    for _ in range(50):
        independent, _ = planted(rng, shape, 0.0)
        noise = rng.normal(0, 0.01, shape)
        left += np.square(shrink_low_rank(independent + noise, independent, 0.01) - independent).sum()
        total += np.square(noise).sum()
    assert left < (0.02 if min(shape) > 2 else 0.3) * total


def test_a_block_with_hardly_any_noise_stays(seed):
    independent, truth = planted(np.random.default_rng(seed), (6, 9), 0.5)
    np.testing.assert_allclose(shrink_low_rank(truth, independent, 1e-12), truth, atol=1e-9)


def test_signal_portion_estimates_what_noise_does_not_explain(seed):
    """Mean over 200 blocks, against the true portion of energy; pure noise gives nearly nothing, a clean block everything."""
    rng = np.random.default_rng(seed)
    independent, truth = planted(rng, (12, 12), 0.5)
    energy = np.square(truth - independent).mean()
    for stddev in (energy**0.5 / 2, energy**0.5):
        found = [signal_portion(truth + rng.normal(0, stddev, truth.shape), independent, stddev) for _ in range(200)]
        assert np.mean(found) == pytest.approx(energy / (energy + stddev**2), abs=0.05)
    noise = [signal_portion(independent + rng.normal(0, 1, truth.shape), independent, 1.0) for _ in range(200)]
    assert np.mean(noise) < 0.1
    assert signal_portion(truth, independent, 1e-12) == pytest.approx(1.0)
    assert signal_portion(independent, independent, 1.0) == 0.0


def class_block(rng: np.random.Generator, prior: np.ndarray, bins: int, strength: float, rows: float) -> np.ndarray:
    """Expected counts (classes, bins); with strength 0 all classes have the same shares."""
    common = rng.dirichlet(np.full(bins, 5.0))
    shares = np.stack([(1 - strength) * common + strength * rng.dirichlet(np.full(bins, 5.0)) for _ in prior])
    return rows * prior[:, None] * shares


PRIORS = [np.array([0.9, 0.1]), np.array([0.5, 0.3, 0.2]), np.array([0.999, 0.001]), np.full(10, 0.1)]


def with_noise(rng: np.random.Generator, truth: np.ndarray, stddev: float) -> np.ndarray:
    """Noise on each cell, then each class brought back to its known total, as the stage does."""
    noise = rng.normal(0, stddev, truth.shape)
    return truth + noise - noise.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("prior", PRIORS, ids=len)
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5])
def test_shrinking_classes_lowers_the_error_of_what_a_column_says(prior, strength, seed):
    """The error of p(bin | class), which naive Bayes divides by; in it rare classes weigh as much as others."""
    rng = np.random.default_rng(seed)
    before = after = 0.0
    for _ in range(60):
        truth = class_block(rng, prior, 12, strength, 5000)
        block = with_noise(rng, truth, 10.0)
        before += np.square((block - truth) / prior[:, None]).sum()
        after += np.square((shrink_classes(block, 10.0) - truth) / prior[:, None]).sum()
    assert after < before * (1 if strength else 0.5)


@pytest.mark.parametrize("prior", PRIORS, ids=len)
def test_the_factor_takes_off_exactly_the_energy_that_noise_adds(prior, seed):
    """1 - factor is noise energy over observed energy: compared with the energy that simulated noise has."""
    rng = np.random.default_rng(seed)
    bins, stddev, rounds = 9, 5.0, 400
    strong = class_block(rng, prior, bins, 0.9, 1e6)
    independent = np.outer(strong.sum(axis=1) / strong.sum(), strong.sum(axis=0))
    kept = (shrink_classes(strong, stddev) - independent).ravel() @ (strong - independent).ravel()
    energy = np.square(strong - independent).sum()
    stated = energy - kept
    simulated = []
    for _ in range(rounds):
        block = with_noise(rng, class_block(rng, prior, bins, 0.0, 1e6), stddev)
        added = block - np.outer(block.sum(axis=1) / block.sum(), block.sum(axis=0))
        simulated.append(np.square(added).sum())
    error = np.std(simulated) / rounds**0.5
    assert abs(np.mean(simulated) - stated) < 6 * error


@pytest.mark.parametrize("prior", PRIORS, ids=len)
def test_class_sizes_and_bin_totals_stay(prior, seed):
    rng = np.random.default_rng(seed)
    block = np.maximum(with_noise(rng, class_block(rng, prior, 7, 0.3, 4000), 8.0), 0.0)
    got = shrink_classes(block, 8.0)
    np.testing.assert_allclose(got.sum(axis=0), block.sum(axis=0))
    np.testing.assert_allclose(got.sum(axis=1), block.sum(axis=1))
    assert (got >= -1e-9).all()


def test_a_block_that_is_independent_already_stays():
    block = np.outer([3.0, 1.0], [10.0, 20.0, 30.0])
    np.testing.assert_allclose(shrink_classes(block, 5.0), block)
