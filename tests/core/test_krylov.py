"""Krylov methods: counts, honest residuals and statuses, derivatives with transposed preconditioners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

import solvers as sv
from solvers.core import krylov
from solvers.core.krylov import Gmres

RNG = np.random.default_rng(0)
N = 60
NOISE = RNG.standard_normal((N, N))
SPD = NOISE @ NOISE.T / N + np.eye(N)
INDEFINITE = SPD - 2.5 * np.eye(N)
RIGHT = np.eye(N) - 0.5 * NOISE / np.linalg.norm(NOISE, 2)
B = RNG.standard_normal(N)


def test_gmres_needs_as_many_products_as_scipy():
    n = 400
    noise = np.random.default_rng(0).standard_normal((n, n))
    matrix = np.eye(n) - 0.5 * noise / np.linalg.norm(noise, 2)
    b = np.random.default_rng(1).standard_normal(n)
    ours = jax.jit(
        lambda t: Gmres(50).solve(lambda v: jnp.asarray(matrix) @ v, jnp.asarray(b), None, lambda v: v, t)[1]
    )
    for rtol, published in ((1e-3, 7), (1e-6, 12), (1e-10, 19)):
        count = []
        operator = scipy.sparse.linalg.LinearOperator((n, n), lambda v, c=count: (c.append(1), matrix @ v)[1])
        scipy.sparse.linalg.gmres(operator, b, rtol=rtol, restart=50)
        stats = ours(rtol * np.linalg.norm(b))
        assert stats.code == sv.Status.CONVERGED
        assert stats.products <= min(len(count), published) + 1


def test_a_batch_is_its_members():
    """Side by side with restarts, an empty right-hand side, one that is not finite, and a singular matrix."""
    tilts = jnp.array([0.1, 0.7, 0.5, 0.5, 1.0])
    rights = jnp.asarray(np.stack([B, B, 0 * B, np.full(N, np.nan), B]))
    scales = jnp.array([1.0, 3.0, 1.0, 1.0, 0.0])

    def one(tilt, scale, b):
        def product(v):
            return scale * (v + tilt * jnp.asarray(NOISE) @ v / N**0.5)

        return sv.linear_solve(product, b, method=Gmres(restart=20, max_steps=90), rtol=1e-6)

    many = jax.jit(jax.vmap(one))(tilts, scales, rights)
    codes = [sv.Status(int(c)).name for c in many.code]
    assert codes == ["CONVERGED", "CONVERGED", "CONVERGED", "NONFINITE", "STAGNATED"]
    assert many.stats.products[0] < 21 < many.stats.products[1]  # the second one starts again
    alone = jax.jit(one)
    for i in range(5):
        single = alone(tilts[i], scales[i], rights[i])
        assert int(single.code) == int(many.code[i])
        assert int(single.stats.products) == int(many.stats.products[i])
        np.testing.assert_allclose(single.value, many.value[i], rtol=1e-8, atol=1e-10)


def test_both_orders_of_gram_schmidt_are_one():
    """By rows on processors, by matrix products on others: here against each other."""
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (3, 50, 6)))[0].transpose(2, 0, 1)
    basis = basis.at[4:].set(0.0)
    w = jax.random.normal(jax.random.key(1), (3, 50))
    for ours, other in zip(
        krylov._row_by_row(basis, w, jnp.asarray(3)), krylov._all_rows(basis, w, jnp.asarray(3)), strict=True
    ):
        np.testing.assert_allclose(ours, other, atol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize(
    ("method", "matrix"),
    [
        (sv.Cg(), SPD),
        (sv.Minres(), INDEFINITE),
        (sv.Gmres(), RIGHT),
        # The spectrum in the left half-plane makes the inner products of BiCGStab negative.
        (sv.BiCgStab(), -RIGHT),
        (sv.BiCgStab(), np.diag(-np.arange(1.0, 11.0))),
        (sv.Gmres(restart=8), SPD),
    ],
)
def test_the_true_residual_meets_the_tolerance(method, matrix, dtype):
    a, b = jnp.asarray(matrix, dtype), jnp.asarray(B[: len(matrix)], dtype)
    scale = jnp.asarray(1 / (1 + np.abs(np.diag(matrix))), dtype)
    rtol = 1e-10 if dtype == jnp.float64 else 1e-5
    solution = sv.linear_solve(a, b, method=method, preconditioner=lambda v, scale=scale: scale * v, rtol=rtol).check()
    assert solution.value.dtype == dtype
    # The residual in double precision differs by the round-off of one product.
    residual = np.linalg.norm(b - np.asarray(a, float) @ np.asarray(solution.value, float))
    slack = 100 * float(jnp.finfo(dtype).eps) * np.linalg.norm(matrix, 2) * np.linalg.norm(solution.value)
    assert residual <= rtol * np.linalg.norm(b) + slack
    assert solution.stats.iterations <= 3 * N


@pytest.mark.parametrize("method", [sv.Cg(), sv.Minres(), sv.Gmres(), sv.BiCgStab()], ids=lambda m: type(m).__name__)
def test_nothing_to_do_costs_nothing(method):
    matrix = jnp.asarray(SPD)
    zero = sv.linear_solve(matrix, jnp.zeros(N), method=method).check()
    assert zero.stats.products == 0 and not np.any(zero.value)
    exact = sv.linear_solve(matrix, matrix @ jnp.asarray(B), x0=jnp.asarray(B), method=method).check()
    assert exact.stats.products == 1
    np.testing.assert_array_equal(exact.value, B)


@pytest.mark.parametrize(
    ("method", "matrix"),
    [(sv.Cg(), SPD), pytest.param(sv.Minres(), INDEFINITE, marks=pytest.mark.slow)],
    ids=["Cg", "Minres"],
)
def test_derivatives_by_the_symmetric_methods(method, matrix):
    """x = (s A)^-1 b: the gradient of c . x by b is y = (s A)^-1 c, and -y . b / s by s."""
    a, b, c = (jnp.asarray(m) for m in (matrix, B, np.cos(B)))

    def value(scale, b):
        return c @ sv.linear_solve(lambda v, s: s * (a @ v), b, scale, method=method, rtol=1e-12).value

    by_scale, by_b = jax.grad(value, (0, 1))(2.0, b)
    adjoint = np.linalg.solve(matrix, c) / 2
    # The tolerance, enlarged by the condition of the matrix.
    np.testing.assert_allclose(by_b, adjoint, atol=1e-9 * np.abs(adjoint).max())
    np.testing.assert_allclose(by_scale, -(adjoint @ B) / 2, rtol=1e-8)


@pytest.mark.parametrize("method", [sv.Cg(50), sv.Minres(50), sv.Gmres(max_steps=50), sv.BiCgStab(50)])
def test_a_singular_system_is_no_success(method):
    solution = sv.linear_solve(jnp.diag(jnp.array([1.0, 2.0, 0.0])), jnp.ones(3), method=method)
    assert solution.status in (sv.Status.STAGNATED, sv.Status.MAX_STEPS, sv.Status.NONFINITE)
    assert bool(jnp.all(jnp.isfinite(solution.value)))
    with pytest.raises(sv.SolverError, match="residual"):
        solution.check()


def test_an_indefinite_matrix_stops_conjugate_gradients():
    solution = sv.linear_solve(jnp.diag(jnp.array([1.0, -1.0])), jnp.array([0.1, 1.0]), method=sv.Cg())
    assert solution.status == sv.Status.STAGNATED


def test_a_function_that_is_not_linear_is_no_success():
    solution = sv.linear_solve(lambda x: x + x**2, jnp.array([1.0, 2.0]), method=sv.Gmres(max_steps=30))
    assert solution.status != sv.Status.CONVERGED


def test_a_small_scale_is_no_zero():
    # 1e-25 squared underflows in single precision.
    b = jnp.asarray(1e-25 * B, jnp.float32)
    solution = sv.linear_solve(jnp.asarray(RIGHT, jnp.float32), b).check()
    np.testing.assert_allclose(1e25 * solution.value, np.linalg.solve(RIGHT, B), rtol=0, atol=1e-4)


def of_matrix(a, b):
    solution = sv.linear_solve(lambda x, a: {"u": a @ x["u"]}, {"u": b}, a, rtol=1e-13)
    return jnp.sum(jnp.sin(solution.value["u"]))


def test_derivatives_are_those_of_the_dense_solution():
    a, b = jnp.asarray(RIGHT[:8, :8]), jnp.asarray(B[:8])

    def dense(a, b):
        return jnp.sum(jnp.sin(jnp.linalg.solve(a, b)))

    for mine, true in zip(jax.jit(jax.grad(of_matrix, (0, 1)))(a, b), jax.grad(dense, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(mine, true, rtol=0, atol=1e-11)
    np.testing.assert_allclose(jax.hessian(of_matrix, 1)(a, b), jax.hessian(dense, 1)(a, b), rtol=0, atol=1e-10)


def test_the_adjoint_has_the_transposed_preconditioner():
    # With the exact inverse, not symmetric, every solve takes one iteration; with the wrong one four do not suffice.
    a, b = jnp.asarray(RIGHT), jnp.asarray(B)
    inverse = jnp.linalg.inv(a)

    def loss(b, preconditioner):
        method = sv.Gmres(max_steps=4)
        return jnp.sum(sv.linear_solve(a, b, method=method, preconditioner=preconditioner, rtol=1e-10).value ** 2)

    gradient = jax.grad(loss)(b, lambda v: inverse @ v)
    np.testing.assert_allclose(gradient, 2 * inverse.T @ (inverse @ b), rtol=0, atol=1e-8)
    assert bool(jnp.all(jnp.isnan(jax.grad(loss)(b, None))))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sv.Gmres(restart=0), "restart"),
        (lambda: sv.linear_solve(jnp.eye(2), jnp.ones(2, int)), "floating"),
        (lambda: sv.linear_solve(lambda x: x[:1], jnp.ones(2)), "shapes"),
        (lambda: sv.linear_solve(jnp.eye(2), jnp.ones(2), rtol=1e-17), "precision"),
    ],
)
def test_wrong_input_is_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
