"""Sinks tell what NumPy tells of all the observations at once, in constant memory, and a NaN spoils nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.sinks import _merge_neighbours

EPS = np.finfo(float).eps


def fed(sink, values):
    """The result of a sink after the rows of an array (observations, members, ...)."""
    values = jnp.asarray(values)

    def one(total, value):
        ok = jnp.isfinite(value).reshape(value.shape[0], -1).all(axis=1)
        return sink.update(total, value, ok), None

    total, _ = jax.jit(lambda v: jax.lax.scan(one, sink.start(v[0]), v))(values)
    return sink.result(total)


def draws(n, members=4, shape=(3,), seed=0):
    return np.random.default_rng(seed).normal(size=(n, members, *shape)) + 100.0


def test_moments():
    x = draws(501)
    found = fed(sv.Moments(), x)
    np.testing.assert_allclose(found.mean, x.mean(axis=(0, 1)), rtol=501 * EPS)
    # A mean of 100 costs Welford's update nothing, where the difference of two sums of squares would lose 4 digits.
    np.testing.assert_allclose(found.variance, x.reshape(-1, 3).var(axis=0, ddof=1), rtol=501 * 100 * EPS)
    np.testing.assert_allclose(found.sd, np.sqrt(found.variance))
    assert found.count == 4 * 501


def test_moments_in_single_precision_keep_the_variance():
    x = (draws(2000) + 4e3).astype(np.float32)
    found = fed(sv.Moments(), x)
    # Each update rounds the mean, 4e3, by eps; 2000 of these errors walk randomly and enter squared.
    np.testing.assert_allclose(found.variance, x.astype(float).reshape(-1, 3).var(axis=0, ddof=1), rtol=1e-3)


@pytest.mark.parametrize("n", [7, 64, 65, 500, 4099])
def test_batch_means_are_those_of_all_observations(n):
    """Batches after any number of mergers are those of the batches that NumPy cuts."""
    x = draws(n, members=2, shape=())
    found = fed(sv.BatchMeans(64), x)
    length = 1
    while n // length >= 64:
        length *= 2
    full = n // length
    means = x[: full * length].reshape(full, length, 2).mean(axis=1)
    np.testing.assert_allclose(found.mean, x.mean(), rtol=1e-12)
    if 2 * full < 8:
        assert np.isnan(found.mcse)
        return
    mcse = np.sqrt(means.ravel().var(ddof=1) / means.size)
    # Means of 100 with deviations of 1 / sqrt(length): cancellation.
    np.testing.assert_allclose(found.mcse, mcse, rtol=1e-9)
    np.testing.assert_allclose(found.ess, x.ravel().var(ddof=1) / mcse**2, rtol=1e-9)


def test_batch_means_of_an_autoregression():
    """AR(1): ess of the mean is N (1 - rho) / (1 + rho)."""
    rho, n = 0.8, 20_000
    noise = np.random.default_rng(3).normal(size=(n, 4))
    x = np.zeros_like(noise)
    x[0] = noise[0] / np.sqrt(1 - rho**2)
    for t in range(1, n):
        x[t] = rho * x[t - 1] + noise[t]
    found = fed(sv.BatchMeans(), x)
    # 156 or more batch means in all: relative error of their variance sqrt(2 / 156) = 0.11, four of these.
    assert found.ess == pytest.approx(4 * n * (1 - rho) / (1 + rho), rel=0.45)
    assert found.r_hat == pytest.approx(1.0, abs=0.005)


def test_r_hat_is_the_split_one():
    x = draws(64 * 8, members=3, shape=()) + np.array([0.0, 0.5, 1.0])
    found = fed(sv.BatchMeans(64), x)
    halves = np.concatenate(np.split(x, 2))
    halves = np.stack([x[:256], x[256:]]).transpose(1, 0, 2).reshape(256, -1)
    within, between = halves.var(axis=0, ddof=1).mean(), halves.mean(axis=0).var(ddof=1)
    np.testing.assert_allclose(found.r_hat, np.sqrt(255 / 256 + between / within), rtol=1e-9)
    assert found.r_hat > 1.05


def test_merging_keeps_moments():
    batches = {
        "mean": jnp.array([1.0, 3.0, 5.0, 7.0])[:, None],
        "m2": jnp.array([2.0, 0.0, 1.0, 0.0])[:, None],
        "count": jnp.array([3, 1, 2, 0], jnp.int32)[:, None],
    }
    merged = _merge_neighbours(batches)
    np.testing.assert_allclose(merged["mean"][:, 0], [1.5, 5.0, 0, 0])
    np.testing.assert_allclose(merged["m2"][:, 0], [2.0 + 4.0 * 3 / 4, 1.0, 0, 0])
    assert merged["count"][:, 0].tolist() == [4, 2, 0, 0]


def test_quantiles_are_exact_as_long_as_all_is_kept():
    x = draws(200)
    found = fed(sv.Quantiles((0.1, 0.5), keep=256), x)
    np.testing.assert_allclose(found.values, np.quantile(x.reshape(-1, 3), (0.1, 0.5), axis=0))
    assert found.kept == 800


def test_quantiles_of_many_are_those_of_every_so_manieth():
    x = draws(1000)
    found = fed(sv.Quantiles((0.1, 0.5), keep=64), x)
    kept = x[::16]
    np.testing.assert_allclose(found.values, np.quantile(kept.reshape(-1, 3), (0.1, 0.5), axis=0))
    assert found.kept == kept.shape[0] * 4


@pytest.mark.parametrize("sink", [sv.Moments(), sv.BatchMeans(16), sv.Quantiles((0.5,), keep=64)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_passed_over(sink, bad):
    """A chain that is lost halfway leaves what it saw before; the others lose nothing."""
    x = draws(40, shape=(2,))
    lost = x.copy()
    lost[20:, 1, 0] = bad
    clean, spoilt = fed(sink, x[:, [0, 2, 3]]), fed(sink, lost)
    leaves = [leaf for leaf in jax.tree.leaves(spoilt) if isinstance(leaf, np.ndarray)]
    assert leaves and all(np.isfinite(leaf).all() for leaf in leaves)
    if isinstance(sink, sv.Moments):
        assert spoilt.count == clean.count + 20
        rest = np.concatenate([x[:, [0, 2, 3]].reshape(-1, 2), x[:20, 1]])
        np.testing.assert_allclose(spoilt.mean, rest.mean(axis=0), rtol=1e-12)


def test_nothing_but_nan_tells_nan():
    for sink in (sv.Moments(), sv.BatchMeans(), sv.Quantiles()):
        result = fed(sink, np.full((20, 2, 3), np.nan))
        value = result.values if isinstance(sink, sv.Quantiles) else result.mean
        assert np.isnan(value).all() and value.shape[-1] == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sv.BatchMeans(15), "even and at least 16"),
        (lambda: sv.Quantiles((0.5, 1.5)), "between 0 and 1"),
        (lambda: sv.Quantiles((0.5,), keep=17), "even and at least 16"),
        (lambda: sv.Quantiles(()), "between 0 and 1"),
    ],
)
def test_wrong_choices(make, message):
    with pytest.raises(ValueError, match=message):
        make()
