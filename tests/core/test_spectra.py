"""Eigenpairs and singular triplets against closed forms; their derivatives against perturbation theory."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core.products import HessianProduct, JacobianProduct
from solvers.core.spectra import eigsh, svds
from solvers.core.status import SolverError, Status

EPS = np.finfo(float).eps
RANDOM = np.random.default_rng(4)


def times(x, matrix):
    return matrix @ x


def membrane(field):
    """-h^2 times the five-point Laplacian with zero values outside, on a pytree."""
    u = jnp.pad(field["u"], 1)
    inner = u[1:-1, 1:-1]
    return {"u": 4 * inner - u[:-2, 1:-1] - u[2:, 1:-1] - u[1:-1, :-2] - u[1:-1, 2:]}


def laplacian_values(n):
    """Eigenvalues of the second difference on n inner nodes, ascending."""
    return 4 * np.sin(np.arange(1, n + 1) * np.pi / 2 / (n + 1)) ** 2


def symmetric(n, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    return (matrix + matrix.T) / 2


def with_spectrum(values, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return jnp.asarray(q * np.asarray(values) @ q.T), q


# ---- Values and vectors ----


def test_membrane_with_its_repeated_eigenvalues():
    n = 12
    line = laplacian_values(n)
    exact = np.sort(np.add.outer(line, line).ravel())[::-1]
    found = eigsh(membrane, {"u": jnp.zeros((n, n))}, k=6).check()
    # Weyl: an eigenvalue lies within the residual; the Ritz value itself is better by a square.
    np.testing.assert_allclose(found.values, exact[:6], atol=100 * EPS * exact[0])
    assert exact[1] == exact[2] and np.all(found.residuals <= 2e-8 * exact[0])
    vectors = np.asarray(found.vectors["u"]).reshape(6, -1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=100 * EPS)
    images = np.asarray(jax.vmap(membrane)(found.vectors)["u"]).reshape(6, -1)
    true = np.linalg.norm(images - found.values[:, None] * vectors, axis=1)
    np.testing.assert_allclose(found.residuals, true, atol=100 * EPS * exact[0])
    assert found.status is Status.CONVERGED


@pytest.mark.slow
@pytest.mark.parametrize("which", [pytest.param("smallest", marks=pytest.mark.slow), "magnitude"])
def test_the_wanted_end_of_the_spectrum(which):
    values = np.concatenate([np.linspace(-3.0, 2.0, 90), [2.5, -3.5, -4.0]])
    matrix, _ = with_spectrum(values)
    order = np.sort(values) if which == "smallest" else values[np.argsort(-np.abs(values))]
    found = eigsh(times, jnp.zeros(93), matrix, k=3, which=which).check()
    np.testing.assert_allclose(found.values, order[:3], atol=1e-13)


@pytest.mark.slow
def test_more_copies_of_an_eigenvalue_than_a_block_is_wide():
    matrix, _ = with_spectrum([5.0] * 6 + list(np.linspace(0.0, 4.0, 94)))
    found = eigsh(times, jnp.zeros(100), matrix, k=7, block=7).check()
    np.testing.assert_allclose(found.values, [5.0] * 6 + [4.0], atol=1e-12)


@pytest.mark.parametrize("shape", [pytest.param((120, 90), marks=pytest.mark.slow), (90, 120)])
def test_singular_triplets_are_those_of_numpy(shape):
    u, _, vt = np.linalg.svd(RANDOM.normal(size=shape), full_matrices=False)
    sizes = 0.7 ** np.arange(90)
    matrix = u * sizes @ vt
    k, oversampling = 6, 4
    found = svds(times, jnp.zeros(shape[1]), jnp.asarray(matrix), k=k).check()
    np.testing.assert_allclose(found.values, sizes[:k], rtol=1e-12)
    left, right = np.asarray(found.left), np.asarray(found.right)
    for a, b in ((left, u.T), (right, vt)):
        np.testing.assert_allclose(np.abs(np.sum(a * b[:k], axis=1)), 1, atol=1e-12)
    np.testing.assert_allclose(matrix @ right.T, (found.values[:, None] * left).T, atol=1e-8)
    # The best approximation of rank k; one random sketch is promised less by Halko, Martinsson and Tropp, theorem 10.6.
    error = np.linalg.norm(matrix - left.T * np.asarray(found.values) @ right, 2)
    tail = np.sqrt(np.sum(sizes[k:] ** 2))
    halko = (1 + np.sqrt(k / (oversampling - 1))) * sizes[k]
    halko += np.e * np.sqrt(k + oversampling) / oversampling * tail
    np.testing.assert_allclose(error, sizes[k], rtol=1e-8)
    assert error <= halko


@pytest.mark.slow
def test_a_matrix_of_low_rank():
    a = RANDOM.normal(size=(150, 4)) @ RANDOM.normal(size=(4, 100))
    found = svds(times, jnp.zeros(100), jnp.asarray(a), k=5).check()
    exact = np.linalg.svd(a, compute_uv=False)[:5]
    np.testing.assert_allclose(found.values, exact, atol=100 * EPS * exact[0])
    assert int(found.products) < 200


# ---- Derivatives ----

BASE, CHANGES, PROBE = symmetric(60), np.stack([symmetric(60, s) for s in (1, 2)]), RANDOM.normal(size=60)


def moved(t):
    return jnp.asarray(BASE) + jnp.tensordot(t, jnp.asarray(CHANGES), 1)


def first_and_second_order():
    """Perturbation theory: the gradient of the largest eigenvalue and its Hessian, from a full decomposition."""
    values, vectors = np.linalg.eigh(BASE)
    coupling = vectors.T @ CHANGES @ vectors
    others = coupling[:, -1, :-1]
    return coupling[:, -1, -1], 2 * others @ np.diag(1 / (values[-1] - values[:-1])) @ others.T


@pytest.mark.slow
def test_hellmann_feynman_and_second_order_perturbation():
    def value(t):
        return eigsh(times, jnp.zeros(60), moved(t), k=2, rtol=1e-12).values[0]

    gradient, hessian = first_and_second_order()
    point = jnp.zeros(2)
    both = jax.jit(lambda t: (jax.grad(value)(t), jax.jacfwd(jax.grad(value))(t)))(point)
    np.testing.assert_allclose(both[0], gradient, atol=1e-12)
    np.testing.assert_allclose(both[1], hessian, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_second_derivatives_of_vectors_in_every_mode(inner, outer):
    weights = jnp.array([1.0, 2.0, 3.0])

    def ours(t):
        found = eigsh(times, jnp.zeros(60), moved(t), k=3, rtol=1e-12)
        return found.values.sum() + weights @ (found.vectors @ PROBE) ** 2

    def dense(t):
        values, vectors = jnp.linalg.eigh(moved(t))
        return values[-3:].sum() + weights @ (vectors.T[::-1][:3] @ PROBE) ** 2

    point = jnp.array([0.3, -0.2])
    np.testing.assert_allclose(outer(inner(ours))(point), outer(inner(dense))(point), rtol=1e-8)


@pytest.mark.parametrize("mode", [jax.jacrev, pytest.param(jax.jacfwd, marks=pytest.mark.slow)])
def test_derivatives_of_vectors(mode):
    def probed(t):
        return (eigsh(times, jnp.zeros(60), moved(t), k=2, rtol=1e-12).vectors @ PROBE) ** 2

    values, vectors = np.linalg.eigh(BASE)
    gap = values[None, :] - values[:, None]
    turn = np.divide(1, gap, out=np.zeros_like(gap), where=gap != 0) * (vectors.T @ CHANGES @ vectors)
    change = PROBE @ vectors @ turn
    exact = (2 * (PROBE @ vectors) * change)[:, ::-1][:, :2].T
    np.testing.assert_allclose(mode(probed)(jnp.zeros(2)), exact, rtol=1e-8)


def repeated(t):
    """Eigenvalue 3 three times, at the end of the spectrum, and a change that splits it."""
    matrix, _ = with_spectrum([3.0] * 3 + list(np.linspace(-1.0, 1.0, 9)))
    return matrix + t * jnp.asarray(symmetric(12, 5))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [jax.jacfwd, pytest.param(jax.jacrev, marks=pytest.mark.slow)])
def test_what_does_not_depend_on_the_basis_is_exact_where_eigenvalues_repeat(mode):
    probe, change = symmetric(12, 6), symmetric(12, 5)

    def functions(t):
        found = eigsh(times, jnp.zeros(12), repeated(t), k=3)
        by_vectors = jnp.trace(found.vectors @ probe @ found.vectors.T)
        mixed = jnp.trace(found.frame @ probe @ found.frame.T @ found.projected @ found.projected)
        return jnp.stack([jnp.sum(found.values**2), by_vectors, mixed])

    values, vectors = np.linalg.eigh(np.asarray(repeated(0.0)))
    turned = vectors.T @ change @ vectors
    inside = np.arange(12) >= 9
    # Daleckii and Krein: d f(A) = V (f[l_i, l_j] o G) V^T, for f = 1 and f = l^2 on the subspace, 0 elsewhere.
    derivatives = [np.sum(6.0 * np.diag(turned)[inside])]
    for f, slope in ((lambda v: 0 * v + 1, 0.0), (lambda v: v**2, 6.0)):
        image = np.where(inside, f(values), 0.0)
        gap = values[:, None] - values[None, :]
        apart = inside[:, None] != inside[None, :]
        quotient = np.where(apart, (image[:, None] - image[None, :]) / np.where(apart, gap, 1), 0.0)
        quotient = np.where(inside[:, None] & inside[None, :], slope, quotient)
        derivatives.append(np.trace(probe @ vectors @ (quotient * turned) @ vectors.T))
    np.testing.assert_allclose(mode(functions)(0.0), derivatives, rtol=1e-7)


@pytest.mark.slow
def test_a_cut_through_a_repeated_eigenvalue_leaves_values_and_poisons_vectors():
    found = jax.jacrev(lambda t: eigsh(times, jnp.zeros(12), repeated(t), k=2).values.sum())(0.0)
    assert np.isfinite(found)
    broken = jax.jacrev(lambda t: eigsh(times, jnp.zeros(12), repeated(t), k=2).vectors[0, 0])(0.0)
    assert np.isnan(broken)


def test_derivatives_of_singular_triplets():
    a = RANDOM.normal(size=(9, 7))
    u, _, vt = np.linalg.svd(a)
    gradient = jax.grad(lambda a: svds(times, jnp.zeros(7), a, k=2, rtol=1e-12).values.sum())(jnp.asarray(a))
    np.testing.assert_allclose(gradient, u[:, :2] @ vt[:2], atol=1e-12)

    def coherence(a):
        found = svds(times, jnp.zeros(7), a, k=2, rtol=1e-12)
        return jnp.sum((found.left @ jnp.arange(9.0)) * (found.right @ jnp.arange(7.0)) * jnp.array([1.0, 2.0]))

    change, h = RANDOM.normal(size=a.shape), 1e-5
    ahead, behind = (float(coherence(jnp.asarray(a + sign * h * change))) for sign in (1, -1))
    slope = float(jnp.sum(jax.grad(coherence)(jnp.asarray(a)) * change))
    # Central differences: h^2 times a third derivative, and round-off / h.
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-6)


# ---- Operators ----


def test_products_with_hessians_and_jacobians():
    matrix = jnp.asarray(symmetric(8))
    x = jnp.linspace(0.0, 1.0, 8)
    found = eigsh(HessianProduct(lambda x, m: 0.5 * x @ m @ x), x, x, matrix, k=2).check()
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(matrix)[::-1][:2], rtol=1e-13)
    found = svds(JacobianProduct(lambda x: jnp.sin(matrix[:5] @ x)), x, x, k=2).check()
    dense = np.cos(matrix[:5] @ x)[:, None] * np.asarray(matrix[:5])
    np.testing.assert_allclose(found.values, np.linalg.svd(dense, compute_uv=False)[:2], rtol=1e-13)


def test_what_an_operator_captures_is_differentiated():
    diagonal = jnp.arange(10.0)
    slope = jax.grad(lambda s: eigsh(lambda x: s * diagonal * x, jnp.zeros(10), k=1).values[0])(2.0)
    np.testing.assert_allclose(slope, 9.0, rtol=1e-13)


def test_a_new_captured_value_gives_a_new_answer():
    scale = [1.0]

    def operator(x):
        return scale[0] * jnp.arange(10.0) * x

    first = float(eigsh(operator, jnp.zeros(10), k=1).values[0])
    scale[0] = 3.0
    assert float(eigsh(operator, jnp.zeros(10), k=1).values[0]) == pytest.approx(3 * first)


def test_batches_equal_a_loop_and_the_second_call_traces_nothing():
    traces = itertools.count()

    def counted(x, matrix):
        next(traces)
        return matrix @ x

    matrices = jnp.stack([jnp.asarray(symmetric(12, s)) for s in range(3)])
    single = [eigsh(counted, jnp.zeros(12), m, k=2).check().values for m in matrices]
    before = next(traces)
    eigsh(counted, jnp.ones(12), 2.0 * matrices[0], k=2, key=jax.random.key(5))
    # The door looks at the shapes of one product; the compiled solve is not traced again.
    assert next(traces) == before + 2
    batch = jax.vmap(lambda m: eigsh(times, jnp.zeros(12), m, k=2))(matrices).check()
    np.testing.assert_allclose(batch.values, single, rtol=1e-13)


def test_single_precision_stays():
    matrix = jnp.asarray(symmetric(60), jnp.float32)
    found = eigsh(times, jnp.zeros(60, jnp.float32), matrix, k=2).check()
    assert {x.dtype for x in (found.values, found.vectors, found.residuals)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(symmetric(60))[::-1][:2], rtol=1e-5)


# ---- Failures ----


def test_too_few_products_are_told_and_give_no_gradient():
    def run(t):
        return eigsh(times, jnp.zeros(60), moved(t), k=2, rtol=1e-14, max_products=30)

    found = run(jnp.zeros(2))
    assert found.status is Status.MAX_STEPS
    with pytest.raises(SolverError, match="MAX_STEPS after"):
        found.check()
    assert np.all(np.isnan(jax.grad(lambda t: run(t).values[0])(jnp.zeros(2))))


def test_an_operator_that_is_not_symmetric_is_found_out():
    found = eigsh(times, jnp.zeros(60), jnp.asarray(RANDOM.normal(size=(60, 60))), k=2)
    assert found.status not in (Status.CONVERGED, Status.OK)


def test_an_operator_that_is_not_finite():
    assert eigsh(lambda x: x * jnp.nan, jnp.zeros(60), k=1).status is Status.NONFINITE


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((lambda x: x, jnp.zeros(3, int)), ValueError, "real floating"),
        ((lambda x: x, jnp.zeros(3, complex)), ValueError, "real floating"),
        ((lambda x: x[:2], jnp.zeros(3)), TypeError, "return what it takes"),
    ],
)
def test_wrong_operators(arguments, error, words):
    with pytest.raises(error, match=words):
        eigsh(*arguments, k=1)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"k": 0}, "from 1 to 3"),
        ({"k": 4}, "from 1 to 3"),
        ({"which": "middle"}, "largest"),
        ({"rtol": 1e-18}, "between"),
        ({"block": 0}, "block"),
        ({"max_products": 0}, "max_products"),
    ],
)
def test_wrong_choices(choice, words):
    with pytest.raises(ValueError, match=words):
        eigsh(lambda x: x, jnp.zeros(3), **({"k": 1} | choice))


def test_results_are_pytrees_inside_of_jit():
    found = eqx.filter_jit(lambda m: eigsh(times, jnp.zeros(12), m, k=1))(jnp.asarray(symmetric(12)))
    assert found.status is Status.CONVERGED
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda m: eigsh(times, jnp.zeros(12), m, k=1).check().values)(jnp.asarray(symmetric(12)))
