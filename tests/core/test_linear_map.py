"""A linear map with a transpose of its own, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core.linear_map import linear_map

MATRIX = jax.random.normal(jax.random.key(0), (4, 3))


def apply(matrix, x):
    return linear_map(lambda m, x: m @ x, lambda m, y: m.T @ y, matrix, x)


X, W = jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, -0.4, 0.2, 3.0])


def test_it_is_the_map():
    np.testing.assert_allclose(apply(MATRIX, X), MATRIX @ X, rtol=1e-15)
    np.testing.assert_allclose(jax.jit(apply)(MATRIX, X), MATRIX @ X, rtol=1e-14)


def test_its_transpose_is_the_authors():
    wrong = linear_map
    pulled = jax.vjp(lambda x: wrong(lambda m, x: m @ x, lambda m, y: 7 * (m.T @ y), MATRIX, x), X)[1](W)[0]
    np.testing.assert_allclose(pulled, 7 * MATRIX.T @ W, rtol=1e-14)


TWO_M, TWO_X = jnp.stack([MATRIX, 2 * MATRIX]), jnp.stack([X, -3 * X])


@pytest.mark.parametrize(
    ("transform", "m", "x"),
    [
        (lambda f: jax.jacfwd(f, argnums=1), MATRIX, X),
        (lambda f: jax.jacrev(f, argnums=1), MATRIX, X),
        (lambda f: jax.jacfwd(f, argnums=0), MATRIX, X),
        (lambda f: jax.jacfwd(jax.jacrev(f, argnums=1), argnums=0), MATRIX, X),
        (lambda f: jax.jacfwd(jax.jacfwd(f, argnums=1), argnums=0), MATRIX, X),
        (lambda f: jax.vmap(f, (0, None)), TWO_M, X),
        (lambda f: jax.vmap(f, (None, 0)), MATRIX, TWO_X),
        (lambda f: jax.vmap(f, (2, 1)), jnp.moveaxis(TWO_M, 0, 2), TWO_X.T),
        (lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None)), TWO_M, TWO_X),
        (lambda f: jax.vmap(jax.jacrev(f, argnums=1), (0, None)), TWO_M, X),
        (lambda f: jax.vmap(jax.jacfwd(f, argnums=1), (None, 0)), MATRIX, TWO_X),
        (lambda f: jax.jacrev(jax.vmap(f, (None, 0)), argnums=1), MATRIX, TWO_X),
        (lambda f: jax.jit(jax.grad(lambda m, x: jax.vmap(f)(m, x).sum(), argnums=1)), TWO_M, TWO_X),
    ],
)
def test_it_transforms_as_the_plain_product_does(transform, m, x):
    ours, plain = transform(apply)(m, x), transform(lambda m, x: m @ x)(m, x)
    np.testing.assert_allclose(ours, plain, atol=1e-13)


def test_what_neither_side_needs_is_dropped():
    """An author may offer residuals that could be needed; those that are not must not be kept."""
    unused = jnp.ones((1000,))

    def f(x):
        return linear_map(lambda r, x: r[0] * x, lambda r, y: r[0] * y, (2.0, unused * x.sum()), x)

    kept = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(f, x)[1], X))
    assert all(leaf.size < 1000 for leaf in kept)


def test_trees_go_in_and_out():
    def forward(r, x):
        return {"sum": x["a"] + r * x["b"], "b": x["b"]}

    def transpose(r, y):
        return {"a": y["sum"], "b": r * y["sum"] + y["b"]}

    out, pull = jax.vjp(lambda x: linear_map(forward, transpose, 3.0, x), {"a": X, "b": 2 * X})
    np.testing.assert_allclose(out["sum"], 7 * X, rtol=1e-15)
    np.testing.assert_allclose(pull(out)[0]["b"], 3 * 7 * X + 2 * X, rtol=1e-15)
