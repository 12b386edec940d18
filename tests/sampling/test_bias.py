"""Kernels without Metropolis correction have the stationary law that theory gives them, with no Monte Carlo.

On a Gaussian a step is linear in state and noise. Its matrices are read off by automatic differentiation of the
kernel's own `move`, and the stationary covariance S solves S = M S M^T + N N^T.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import solvers as sv

STEPS = np.array([0.1, 0.5, 1.0, 1.5])

# Variances of position and velocity on U = x^2 / 2 with friction 1, computed elsewhere to six digits.
TABLE = {
    "BAOAB": ([1, 1, 1, 1], [0.9975, 0.9375, 0.75, 0.4375]),
    "ABOBA": ([1, 1, 1, 1], [1.002506, 1.066667, 1.333333, 2.285714]),
    "OBABO": ([1.002506, 1.066667, 1.333333, 2.285714], [1, 1, 1, 1]),
    "OABAO": ([0.9975, 0.9375, 0.75, 0.4375], [1, 1, 1, 1]),
    "UBU": ([0.998334, 0.958591, 0.838536, 0.664414], [1.000834, 1.021206, 1.090716, 1.243269]),
    "BUB": ([1.000835, 1.022100, 1.106610, 1.345325], [0.998336, 0.960031, 0.863330, 0.815523]),
    "OBA": ([0.954925, 0.871039, 1.077969, 7.62], [1.002632, 1.084372, 1.576117, 12.5]),
}


def half_square(x):
    return -0.5 * jnp.sum(x**2)


def stationary(M, N):
    """S = M S M^T + N N^T, by its linear system."""
    n = M.shape[0]
    return np.linalg.solve(np.eye(n * n) - np.kron(M, M), (N @ N.T).ravel()).reshape(n, n)


def linear_parts(advance, state, noise):
    """Jacobians of `advance(state vector, noise vector)`; that they are the same elsewhere shows it is linear."""
    parts = jax.jacfwd(advance, argnums=(0, 1))
    return parts(state, noise), parts(state + 0.7, noise - 0.3)


def kinetic_parts(scheme):
    def advance(vector, noise, h):
        kernel = sv.Kinetic(half_square, scheme=scheme, step=h)
        state = kernel.init(vector[0], jax.random.key(0))
        state = eqx.tree_at(lambda s: s.velocity, state, vector[1])
        new, _ = kernel.move(state, {"normal": [noise[i] for i in range(noise.shape[0])]})
        return jnp.stack([new.position, new.velocity])

    count = scheme.count("O") + 2 * scheme.count("U")
    run = jax.vmap(lambda h: linear_parts(lambda v, n: advance(v, n, h), jnp.array([0.3, -1.1]), jnp.ones(count)))
    return jax.jit(run)(STEPS)


def exact_parts(letter, t):
    """Flow and covariance of the noise of one letter for x' = v, v' = -x - v + noise, from the matrix exponential."""
    A = {"A": [[0, 1], [0, 0]], "B": [[0, 0], [-1, 0]], "O": [[0, 0], [0, -1]], "U": [[0, 1], [0, -1]]}[letter]
    Q = np.diag([0.0, 2.0]) if letter in "OU" else np.zeros((2, 2))
    # Van Loan (1978): the exponential of [[-A, Q], [0, A^T]] holds both.
    block = scipy.linalg.expm(t * np.block([[-np.array(A, float), Q], [np.zeros((2, 2)), np.array(A, float).T]]))
    flow = block[2:, 2:].T
    return flow, flow @ block[:2, 2:]


@pytest.mark.parametrize("scheme", TABLE)
def test_kinetic_schemes_have_their_stationary_law(scheme):
    (Ms, Ns), (Ms_there, Ns_there) = kinetic_parts(scheme)
    np.testing.assert_allclose(Ms, Ms_there, atol=1e-14)
    np.testing.assert_allclose(Ns, Ns_there, atol=1e-14)
    for i, h in enumerate(STEPS):
        flow, covariance = np.eye(2), np.zeros((2, 2))
        for letter in scheme:
            step, noise = exact_parts(letter, h / scheme.count(letter))
            flow, covariance = step @ flow, step @ covariance @ step.T + noise
        np.testing.assert_allclose(Ms[i], flow, atol=1e-13)
        np.testing.assert_allclose(Ns[i] @ Ns[i].T, covariance, atol=1e-13)
        S = stationary(Ms[i], Ns[i])
        exact = np.linalg.solve(np.eye(4) - np.kron(flow, flow), covariance.ravel()).reshape(2, 2)
        np.testing.assert_allclose(S, exact, rtol=1e-10, atol=1e-10)
        # The table has six digits behind the point, but for its last corner, 7.62 and 12.5.
        corner = scheme == "OBA" and h == 1.5
        assert abs(S[0, 0] - TABLE[scheme][0][i]) < (6e-3 if corner else 6e-7)
        assert abs(S[1, 1] - TABLE[scheme][1][i]) < (6e-2 if corner else 6e-7)


def test_closed_forms_of_the_kinetic_schemes():
    for scheme, x, v in [
        ("BAOAB", lambda h: 1.0, lambda h: 1 - h**2 / 4),
        ("OBABO", lambda h: 1 / (1 - h**2 / 4), lambda h: 1.0),
    ]:
        (Ms, Ns), _ = kinetic_parts(scheme)
        for M, N, h in zip(Ms, Ns, STEPS, strict=True):
            S = stationary(np.asarray(M), np.asarray(N))
            np.testing.assert_allclose([S[0, 0], S[1, 1], S[0, 1]], [x(h), v(h), 0.0], atol=1e-10)


@pytest.mark.parametrize("deviation", [1.0, 0.8])
def test_ula_and_leimkuhler_matthews(deviation):
    hs = np.array([0.01, 0.1, 0.5, 1.0])

    def ula(v, n, h):
        kernel = sv.Ula(lambda x: half_square(x / deviation), step=h)
        return kernel.move(kernel.init(v[0]), n[0])[0].position[None]

    def lagged(v, n, h):
        kernel = sv.LeimkuhlerMatthews(lambda x: half_square(x / deviation), step=h)
        state = eqx.tree_at(lambda s: s.noise, kernel.init(v[0], jax.random.key(0)), v[1])
        new, _ = kernel.move(state, n[0])
        return jnp.stack([new.position, new.noise])

    def parts(advance, size):
        one = lambda h: linear_parts(lambda v, n: advance(v, n, h), jnp.full(size, 0.3), jnp.ones(1))[0]  # noqa: E731
        return jax.jit(jax.vmap(one))(hs)

    for h, M, N in zip(hs, *parts(ula, 1), strict=True):
        S = stationary(np.asarray(M), np.asarray(N))
        np.testing.assert_allclose(S[0, 0], deviation**2 / (1 - h / (2 * deviation**2)), rtol=1e-10)
    for h, M, N in zip(hs, *parts(lagged, 2), strict=True):
        np.testing.assert_allclose(stationary(np.asarray(M), np.asarray(N))[0, 0], deviation**2, rtol=1e-10, err_msg=h)


def test_a_metric_equal_to_the_covariance_makes_all_directions_alike():
    """With A = S, ULA on N(0, S) has the covariance S / (1 - h / 2)."""
    vectors, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 2)))
    prior = sv.DiagonalMetric(jnp.array([1.0, 4.0, 0.25, 9.0]))
    metric = sv.LowRankMetric(jnp.asarray(vectors.T), jnp.array([3.0, -0.6]), prior)
    S = np.asarray(jax.vmap(metric.apply)(jnp.eye(4)))
    P, h = jnp.asarray(np.linalg.inv(S)), 0.5
    kernel = sv.Ula(lambda x: -0.5 * x @ P @ x, step=h, metric=metric)

    @jax.jit
    def parts(x, noise):
        return jax.jacfwd(lambda x, n: kernel.move(kernel.init(x), n)[0].position, argnums=(0, 1))(x, noise)

    M, N = parts(jnp.arange(4.0), jnp.ones(4))
    np.testing.assert_allclose(stationary(np.asarray(M), np.asarray(N)), S / (1 - h / 2), atol=1e-10)


def test_short_times_of_the_exact_flow_lose_no_digits():
    """a - 2 tanh(a / 2) in float32 against double precision."""
    from solvers.sampling.kinetic import _a_minus_two_tanh

    a = np.array([1e-4, 1e-2, 0.15, 0.199, 0.201, 0.5, 3.0])
    # Double precision loses 12 / a^2 roundings itself: compare with the leading term where a is small.
    exact = np.where(a < 0.01, a**3 / 12 * (1 - a**2 / 10), a - 2 * np.tanh(a / 2))
    told = np.asarray(_a_minus_two_tanh(jnp.asarray(a, jnp.float32)), float)
    # Just above 0.2 the difference loses 300 roundings of 6e-8.
    np.testing.assert_allclose(told, exact, rtol=4e-5)
    # On both sides of the seam, in double precision: 300 roundings.
    np.testing.assert_allclose(np.asarray(_a_minus_two_tanh(jnp.asarray(a[2:]))), exact[2:], rtol=300 * 2.3e-16)
