"""Hutch++ against known traces: unbiased, with an error bar that is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core.stochastic_trace import trace

RANDOM = np.random.default_rng(8)
# Slow decay and not symmetric, so that the sampled part matters.
MATRIX = jnp.asarray(np.diag(1 / np.arange(1.0, 81.0) ** 0.7) + 0.05 * RANDOM.normal(size=(80, 80)))
RUNS = 400


def times(x, matrix):
    return matrix @ x


def estimates(products=24):
    keys = jax.random.split(jax.random.key(3), RUNS)
    found = jax.vmap(lambda key: trace(times, jnp.zeros(80), MATRIX, products=products, key=key))(keys)
    return np.asarray(found.value), np.asarray(found.error)


def test_unbiased_with_the_error_that_it_states():
    value, error = estimates()
    off = value - float(jnp.trace(MATRIX))
    assert abs(off.mean()) < 5 * off.std() / np.sqrt(RUNS)
    # The mean square of the stated error is the variance; both scatter by sqrt(2 / RUNS), the former by more with
    # the 8 samples behind each.
    np.testing.assert_allclose(np.mean(error**2), off.var(), rtol=5 * np.sqrt(2 / RUNS) * np.sqrt(1 + 1 / 7))


def test_all_columns_give_the_trace_itself():
    found = trace(times, jnp.zeros(80), MATRIX, products=100)
    np.testing.assert_allclose(found.value, jnp.trace(MATRIX), rtol=1e-13)
    assert float(found.error) == 0 and found.products == 80


def test_the_sketch_takes_a_fast_spectrum_away():
    decay = jnp.asarray(0.5 ** np.arange(200.0))
    found = trace(lambda x: {"a": decay * x["a"]}, {"a": jnp.zeros(200)}, products=90)
    # What the 30 directions of the sketch leave over is about 2^-30 of the spectrum.
    assert abs(float(found.value) - 2) < 1e-7 and float(found.error) < 1e-7 and found.products == 90


def test_the_derivative_is_an_unbiased_estimate():
    keys = jax.random.split(jax.random.key(1), RUNS)
    change = jnp.asarray(RANDOM.normal(size=(80, 80)))

    def slope(key):
        return jax.grad(lambda t: trace(times, jnp.zeros(80), MATRIX + t * change, products=24, key=key).value)(0.0)

    slopes = np.asarray(jax.vmap(slope)(keys))
    assert abs(slopes.mean() - float(jnp.trace(change))) < 5 * slopes.std() / np.sqrt(RUNS)


def test_single_precision_stays():
    found = trace(lambda x: 2 * x, jnp.zeros(50, jnp.float32), products=12)
    assert found.value.dtype == found.error.dtype == jnp.float32
    assert abs(float(found.value) - 100) < 5 * float(found.error)


@pytest.mark.parametrize(
    ("arguments", "choice", "error", "words"),
    [
        ((lambda x: x, jnp.zeros(3, int)), {}, ValueError, "real floating"),
        ((lambda x: x[:2], jnp.zeros(3)), {}, TypeError, "return what it takes"),
        ((lambda x: x, jnp.zeros(3)), {"products": 5}, ValueError, "at least 6"),
    ],
)
def test_wrong_input(arguments, choice, error, words):
    with pytest.raises(error, match=words):
        trace(*arguments, **choice)
