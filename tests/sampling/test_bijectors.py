"""Bijectors: there and back, and volumes against the determinant of the Jacobian by automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

EPS = np.finfo(float).eps


def flat(matrix):
    return matrix[np.tril_indices(matrix.shape[-1])]


def below(matrix):
    return matrix[np.tril_indices(matrix.shape[-1], -1)]


# Bijector, unconstrained numbers, free coordinates of the constrained value.
CASES = {
    "real": (sv.Real(), 3, lambda x: x),
    "positive": (sv.Positive(), 3, lambda x: x),
    "interval": (sv.Interval(jnp.array([-1.0, 0.0, 5.0]), jnp.array([0.5, 7.0, 5.1])), 3, lambda x: x),
    "simplex": (sv.Simplex(), 4, lambda x: x[:-1]),
    "ordered": (sv.Ordered(), 4, lambda x: x),
    "covariance": (sv.CovarianceCholesky(3), 6, flat),
    "correlation": (sv.CorrelationCholesky(4), 6, below),
}


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_with_the_right_volume(name):
    bijector, count, free = CASES[name]
    u = np.concatenate([np.zeros(1), 0.8 * np.random.default_rng(3).normal(size=count - 1)])
    h = 1e-6

    @jax.jit
    def everything(u):
        def probe(u):
            return jnp.sum(jnp.sin(bijector.forward(u))) + bijector.log_det(u)

        x = bijector.forward(u)
        ends = jax.vmap(probe)(jnp.concatenate([u + h * jnp.eye(count), u - h * jnp.eye(count)]))
        jacobian = jax.jacfwd(lambda u: free(bijector.forward(u)))(u)
        return bijector.inverse(x), bijector.log_det(u), jacobian, jax.grad(probe)(u), ends

    back, log_det, jacobian, slope, ends = everything(u)
    np.testing.assert_allclose(back, u, atol=200 * EPS)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=200 * EPS)
    # Central differences, also at u_1 = 0, where an absolute value would have its kink: about h^2 + eps / h.
    np.testing.assert_allclose((ends[:count] - ends[count:]) / (2 * h), slope, atol=1e-8)


def test_constraints_hold_far_out():
    @jax.jit
    def extremes(u):
        factor = sv.CorrelationCholesky(4).forward(u)
        inside = sv.Interval(-2.0, 3.0).forward(u)
        return factor, sv.CorrelationCholesky(4).log_det(u), inside, sv.Simplex().forward(u)

    for scale in (1e-3, 1.0, 30.0):
        factor, log_det, inside, weights = extremes(scale * np.random.default_rng(1).normal(size=6))
        np.testing.assert_allclose(np.sum(np.square(factor), axis=-1), 1.0, atol=20 * EPS)
        assert np.all(np.triu(factor, 1) == 0) and np.isfinite(log_det)
        assert np.all((inside >= -2.0) & (inside <= 3.0))
        assert np.all(weights >= 0) and abs(np.sum(weights) - 1) < 10 * EPS


@pytest.mark.parametrize("bijector, count", [(sv.CovarianceCholesky(3), 6), (sv.CorrelationCholesky(4), 6)])
def test_volume_of_the_matrix_itself(bijector, count):
    free = flat if isinstance(bijector, sv.CovarianceCholesky) else below
    name = "log_det_covariance" if free is flat else "log_det_correlation"

    @jax.jit
    def both(u):
        def product(u):
            factor = bijector.forward(u)
            return free(factor @ factor.T)

        return jax.jacfwd(product)(u), getattr(bijector, name)(u)

    jacobian, log_det = both(0.7 * np.random.default_rng(5).normal(size=count))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=200 * EPS)


def test_the_unconstrained_density_integrates_to_one():
    """An exponential law times a Beta law on the real plane, by the trapezoidal rule (spectral for such tails)."""

    def logdensity(p):
        return -p["rate"] + jnp.log(30.0) + 4 * jnp.log(p["share"]) + jnp.log1p(-p["share"])

    density = sv.Unconstrained(logdensity, {"rate": sv.Positive(), "share": sv.Interval(0.0, 1.0)})
    u = jnp.linspace(-45.0, 20.0, 651)
    values = jax.jit(jax.vmap(lambda a: jax.vmap(lambda b: density({"rate": a, "share": b}))(u)))(u)
    # The tail exp(u) of the exponential law left of -45 is 3e-20.
    np.testing.assert_allclose(jnp.sum(jnp.exp(values)) * (u[1] - u[0]) ** 2, 1.0, atol=1e-12)


def test_one_bijector_serves_a_whole_subtree_and_float32_stays():
    density = sv.Unconstrained(lambda p: -jnp.sum(p["a"]["x"]) - jnp.sum(p["a"]["y"]), {"a": sv.Positive()})
    start = {"a": {"x": jnp.zeros(2, jnp.float32), "y": jnp.zeros(3, jnp.float32)}}
    assert jax.eval_shape(density, start).dtype == jnp.float32
    for bijector, count, _ in CASES.values():
        u = jnp.zeros(count, jnp.float32)
        shapes = jax.eval_shape(lambda u, b=bijector: (b.forward(u), b.log_det(u), b.inverse(b.forward(u))), u)
        assert {s.dtype for s in shapes} == {jnp.dtype(jnp.float32)}


def test_residuals_go_through_and_the_volume_is_in_the_rest():
    bijectors = {"rate": sv.Positive(), "share": sv.Interval(0.0, 2.0)}
    inner = sv.LeastSquares(lambda p: {"a": p["rate"] - 3.0, "b": p["share"] * p["rate"]}, lambda p: -p["rate"])
    bare = sv.LeastSquares(inner.residual)
    u = {"rate": jnp.asarray(0.3), "share": jnp.asarray(-0.7)}

    @jax.jit
    def parts(u):
        told = []
        for density in (inner, bare):
            whole = sv.Unconstrained(density, bijectors)
            r = whole.residual(u)
            told.append((whole(u), -0.5 * (r["a"] ** 2 + r["b"] ** 2) + whole.rest(u), whole.constrain(u), r))
        return told

    for whole, sum_of_parts, p, r in parts(u):
        np.testing.assert_allclose(whole, sum_of_parts, rtol=4 * EPS)
        np.testing.assert_allclose([r["a"], r["b"]], [p["rate"] - 3.0, p["share"] * p["rate"]], rtol=4 * EPS)
    plain = sv.Unconstrained(lambda p: -p["rate"], bijectors)
    assert not hasattr(plain, "residual") and float(plain.rest(u)) == float(plain(u))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="upper - lower"):
        sv.Interval(1.0, 1.0)
    with pytest.raises(TypeError, match="bijectors"):
        sv.Unconstrained(lambda p: p, {"a": "positive"})
    with pytest.raises(ValueError, match="size"):
        sv.CorrelationCholesky(1)
