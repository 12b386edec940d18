"""Fields and their kernels: covariances, acceptance under refinement, linear inversion against dense algebra."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import solvers as sv
from solvers.sampling.fields import covariance_matrix

EPS = np.finfo(float).eps


def prior_on(n, **choices):
    return sv.MaternField(sv.Grid((n, n), 1 / n), length=0.2, **{"smoothness": 1.5, **choices})


# ---- The prior ----


@pytest.mark.parametrize("padding", [0, 5])
def test_a_field_is_one_covariance_operator(padding):
    """Root, covariance, precision and determinant belong to one symmetric positive matrix."""
    grid = sv.Grid((6, 7), (0.2, 0.25))
    prior = sv.MaternField(grid, 0.4, 2.5, deviation=1.7, mean=jnp.ones((6, 7)), padding=padding)
    white = np.prod(prior.shape)

    @jax.jit
    def parts():
        unit = jnp.eye(42).reshape(42, 6, 7)
        root = jax.vmap(prior.sqrt)(jnp.eye(white).reshape(-1, *prior.shape)).reshape(white, 42).T
        transpose = jax.vmap(prior.sqrt_transpose)(unit).reshape(42, white).T
        precision = jax.vmap(prior.precision)(unit).reshape(42, 42)
        return root, transpose, precision

    C = covariance_matrix(prior, jnp.zeros((6, 7)))
    root, transpose, precision = parts()
    condition = np.linalg.cond(C)
    np.testing.assert_allclose(transpose, root.T, atol=10 * EPS)
    np.testing.assert_allclose(root @ root.T, C, atol=20 * EPS)
    np.testing.assert_allclose(np.diag(C), 1.7**2, rtol=20 * EPS)
    # The conjugate gradients stop at a residual of 100 eps.
    np.testing.assert_allclose(precision @ C, np.eye(42), atol=(200 if padding else 10) * condition * EPS)
    if not padding:
        np.testing.assert_allclose(prior.logdet(), np.linalg.slogdet(C)[1], rtol=1e-12)
        x = np.random.default_rng(0).normal(size=(6, 7))
        away = (x - 1.0).ravel()
        square = float(jnp.sum(prior.residual(jnp.asarray(x)) ** 2))
        np.testing.assert_allclose(square, away @ np.linalg.solve(C, away), rtol=condition * EPS)


@pytest.mark.parametrize("nu", [0.5, 1.5])
def test_a_padded_field_has_the_matern_covariance(nu):
    """On a fine grid: exp(-r / l) for nu = 1/2, (1 + sqrt(3) r / l) exp(-sqrt(3) r / l) for nu = 3/2."""
    n, h, length = 64, 0.025, 0.2
    prior = sv.MaternField(sv.Grid(n, h), length, nu, padding=192)
    told = np.asarray(prior.apply(jnp.zeros(n).at[0].set(1.0)))
    r = h * np.arange(n)
    a = math.sqrt(2 * nu) * r[1:] / length
    exact = np.concatenate([[1.0], 2 ** (1 - nu) / special.gamma(nu) * a**nu * special.kv(nu, a)])
    # Modes beyond the grid are cut off: they hold (pi length / (sqrt(2 nu) h))^(-2 nu) of the variance, up to a factor.
    lost = (math.pi * length / (math.sqrt(2 * nu) * h)) ** (-2 * nu)
    np.testing.assert_allclose(told, exact, atol=lost)


def test_a_draw_is_differentiable_and_float32_stays():
    prior = prior_on(8, deviation=2.0)
    key = jax.random.key(0)
    slope = jax.grad(lambda s: jnp.sum(prior_on(8, deviation=s).draw(key)))(2.0)
    np.testing.assert_allclose(slope, jnp.sum(prior.draw(key)) / 2.0, rtol=1e-12)
    for f in (prior.sqrt, prior.apply, prior.precision, prior.residual):
        assert jax.eval_shape(f, jnp.zeros((8, 8), jnp.float32)).dtype == jnp.float32
    assert jax.eval_shape(lambda: prior.draw(key, jnp.float32)).dtype == jnp.float32


# ---- Acceptance ----


@pytest.mark.parametrize("n", [10, 100_000])
def test_pcn_accepts_everything_without_data(n):
    kernel = sv.Pcn(lambda x: 0.0 * jnp.sum(x), sv.IdentityMetric(), step=1.3)

    @jax.jit
    def run(x):
        step = lambda s, k: kernel.step(jax.random.fold_in(jax.random.key(1), k), s)  # noqa: E731
        state, info = jax.lax.scan(step, kernel.init(x), jnp.arange(50))
        return info.acceptance, info.accepted, state.position

    acceptance, accepted, x = run(jax.random.normal(jax.random.key(0), (n,)))
    assert np.all(acceptance == 1.0) and np.all(accepted)
    assert abs(np.mean(np.square(x)) - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_without_data_a_warm_up_stops_at_independent_draws(dtype):
    """Acceptance is one for every step: the adapted one is 2, and may be given to a new kernel."""
    positions = jnp.zeros((2, 3), dtype)
    kernel = sv.Pcn(lambda x: 0.0 * jnp.sum(x), sv.IdentityMetric(), step=jnp.asarray(0.1, dtype))
    run = sv.sample(kernel, jax.random.key(0), positions, steps=1, warmup=300)
    assert float(run.kernel.step_size) == 2.0 and run.kernel.step_size.dtype == dtype
    assert np.all(np.isfinite(run.draws))
    again = sv.Pcn(kernel.loglikelihood, kernel.prior, step=run.kernel.step_size)
    assert float(again.beta) == 1.0
    assert sv.InfinityMala.largest_step == sv.Pcn.largest_step == 2.0


def observed(n, noise):
    """(operator, data): averages over nine squares a quarter wide, the same for every grid."""
    width = n // 4
    corners = [(i * n // 4, j * n // 4) for i in (0, 1, 2) for j in (0, 1, 3)]

    def observe(field):
        means = [jnp.mean(jax.lax.dynamic_slice(field, c, (width, width))) for c in corners]
        return jnp.stack(means) / noise

    return observe, np.array([0.5, -1.0, 0.3, 1.2, -0.4, 0.8, -0.2, 0.1, 0.6]) / noise


def exact_posterior_draws(prior, observe, data, key, count, n):
    """Draws by conditioning: x + C H^T (H C H^T + I)^-1 (y - H x - e); no dense covariance of the field."""
    rows = jax.jacrev(observe)(jnp.zeros((n, n)))
    columns = jax.vmap(prior.apply)(rows)
    gram = jax.vmap(observe)(columns).T + jnp.eye(len(data))

    def one(key):
        place, noise = jax.random.split(key)
        x = prior.draw(place)
        misfit = data - observe(x) - jax.random.normal(noise, data.shape)
        return x + jnp.tensordot(jnp.linalg.solve(gram, misfit), columns, 1)

    return jax.vmap(one)(jax.random.split(key, count))


def stationary_acceptance(make, n, count):
    """Mean acceptance of one step from exact draws of the posterior."""
    prior, (observe, data) = prior_on(n), observed(n, 0.8)
    kernel = make(prior, observe, data)

    @jax.jit
    def run(key):
        starts = exact_posterior_draws(prior, observe, data, key, count, n)
        return jax.vmap(lambda x, k: kernel.step(k, kernel.init(x))[1].acceptance)(starts, jax.random.split(key, count))

    return float(np.mean(run(jax.random.key(n))))


@pytest.mark.parametrize("grids", [(16, 64), pytest.param((16, 32, 64), marks=pytest.mark.slow)])
def test_acceptance_does_not_fall_when_the_grid_is_refined(grids):
    """From 16^2 to 64^2, within 10 %."""

    def make(prior, observe, data):
        return sv.InfinityMala(sv.LeastSquares(lambda x: observe(x) - data), prior, step=0.4)

    told = [stationary_acceptance(make, n, 300) for n in grids]
    # The deviation of the acceptance is 0.2: standard errors are 0.012.
    assert 0.5 < min(told) and max(told) < 1.1 * min(told), told


@pytest.mark.slow
def test_acceptance_of_plain_mala_falls():
    """The same proposal but for terms of O(h^2), compared through densities on the grid."""

    def make(prior, observe, data):
        whole = sv.LeastSquares(lambda x: (observe(x) - data, prior.residual(x)))
        return sv.Mala(whole, step=0.4, metric=prior)

    told = [stationary_acceptance(make, n, 200) for n in (16, 64)]
    assert told[1] < 0.2 * told[0], told


# ---- An inverse problem with an exact answer ----

N = 16


@functools.cache
def heat_problem():
    """Initial temperature from the temperature at 12 places after it has diffused; dense posterior beside it."""
    prior = prior_on(N, deviation=1.5, mean=0.5 * jnp.ones((N, N)))
    k = 2 * np.pi * np.fft.fftfreq(N, 1 / N)
    decay = jnp.asarray(np.exp(-1e-3 * (k[:, None] ** 2 + k[None, : N // 2 + 1] ** 2)))
    places = np.random.default_rng(3).integers(0, N, size=(12, 2))
    noise = 1.5

    def forward(field):
        return jnp.fft.irfftn(jnp.fft.rfftn(field) * decay, s=(N, N))[places[:, 0], places[:, 1]]

    truth = prior.draw(jax.random.key(11))
    data = forward(truth) + noise * jax.random.normal(jax.random.key(12), (12,))
    C = covariance_matrix(prior, truth)
    H = np.asarray(jax.jacfwd(forward)(truth)).reshape(12, -1)
    gain = C @ H.T @ np.linalg.inv(H @ C @ H.T + noise**2 * np.eye(12))
    mean = 0.5 + gain @ (np.asarray(data) - H @ np.full(N * N, 0.5))
    return prior, forward, data, noise, mean, C - gain @ H @ C, H


def against_dense(fields, mean, covariance, effective):
    """z-scores of the mean, and relative errors of variances along random smooth directions, at `effective` draws."""
    flat = fields.reshape(-1, N * N)
    z = (flat.mean(0) - mean) / np.sqrt(np.diag(covariance) / effective)
    directions = np.random.default_rng(0).normal(size=(20, N * N)) @ covariance
    told, exact = np.var(flat @ directions.T, axis=0), np.einsum("ij,jk,ik->i", directions, covariance, directions)
    return np.abs(z).max(), np.abs(told / exact - 1).max() / math.sqrt(2 / effective)


@pytest.mark.parametrize("name", ["InfinityMala", pytest.param("Mala with a low-rank metric", marks=pytest.mark.slow)])
def test_heat_inversion_against_dense_algebra(name):
    """Chains from the prior; what they find is the posterior mean and covariance of dense algebra."""
    prior, forward, data, noise, mean, covariance, H = heat_problem()
    if name == "InfinityMala":
        kernel = sv.InfinityMala(sv.LeastSquares(lambda x: (forward(x) - data) / noise), prior, step=0.3)
        steps, thin = 60, 20
    else:
        # Eigenpairs of the Hessian in the white space of the prior: the metric is then the posterior covariance.
        metric = informed_directions(prior, H, noise)
        np.testing.assert_allclose(covariance_matrix(metric, jnp.zeros((N, N))), covariance, atol=1e-12)
        posterior = sv.LeastSquares(lambda x: ((forward(x) - data) / noise, prior.residual(x)))
        kernel, steps, thin = sv.Mala(posterior, step=0.2, metric=metric), 60, 20
    chains = 400

    @jax.jit
    def run(key):
        def one(key):
            def step(state, n):
                return kernel.step(jax.random.fold_in(key, n), state)

            def stretch(state, n):
                state, info = jax.lax.scan(step, state, n * thin + jnp.arange(thin))
                return state, (state.position, jnp.mean(info.acceptance))

            start = kernel.init(prior.draw(jax.random.fold_in(key, 10**6)))
            return jax.lax.scan(stretch, start, jnp.arange(steps // thin))[1]

        return jax.lax.map(one, jax.random.split(key, chains), batch_size=chains)

    fields, acceptance = map(np.asarray, run(jax.random.key(5)))
    assert 0.4 < acceptance.mean() < 0.97
    # The last field of each chain: independent draws. 256 z-scores stay below 4.5 with probability 0.998.
    worst, spread = against_dense(fields[:, -1], mean, covariance, chains)
    assert worst < 4.5 and spread < 4.5, (worst, spread)
    # The same test sees the prior to be something else.
    far, _ = against_dense(
        np.asarray(jax.vmap(prior.draw)(jax.random.split(jax.random.key(1), chains))), mean, covariance, chains
    )
    assert far > 15


def informed_directions(prior, H, noise):
    """The posterior covariance of a linear problem as a change of the prior."""
    rows = jax.vmap(prior.sqrt_transpose)(jnp.asarray(H).reshape(-1, N, N) / noise)
    _, s, V = np.linalg.svd(np.asarray(rows).reshape(len(H), -1), full_matrices=False)
    return sv.LowRankMetric(jnp.asarray(V.reshape(-1, N, N)), jnp.asarray(-(s**2) / (1 + s**2)), prior)


def test_infinity_mala_with_the_posterior_covariance_accepts_everything():
    """Then y = m_post + k (x - m_post) + beta L xi, reversible: at h = 2 an independent draw of the posterior."""
    prior, forward, data, noise, mean, _, H = heat_problem()
    metric = informed_directions(prior, H, noise)
    misfit = sv.LeastSquares(lambda x: (forward(x) - data) / noise)
    rng, starts = np.random.default_rng(0), jax.vmap(prior.draw)(jax.random.split(jax.random.key(2), 3))
    xi = jnp.asarray(rng.normal(size=(3, N, N)))

    @jax.jit
    def run(h):
        kernel = sv.InfinityMala(misfit, prior, step=h, metric=metric)

        def one(x, xi):
            state, info = kernel.move(kernel.init(x), {"normal": xi, "log_uniform": jnp.asarray(-jnp.inf)})
            return state.position, info.acceptance, metric.sqrt(xi)

        return jax.vmap(one)(starts, xi)

    for h in (0.3, 2.0):
        y, acceptance, noise_of = run(h)
        keep = (1 - h / 2) / (1 + h / 2)
        away = np.asarray(starts).reshape(3, -1) - mean
        expected = mean + keep * away + math.sqrt(1 - keep**2) * np.asarray(noise_of).reshape(3, -1)
        # Round-off times the condition number 2e3 of the prior's root and its inverse, and misfits near 100.
        np.testing.assert_allclose(np.asarray(y).reshape(3, -1), expected, atol=1e-10)
        np.testing.assert_allclose(acceptance, 1.0, atol=1e-9)


def test_infinity_mala_with_any_metric_has_its_ratio():
    """A metric that fits nothing, a likelihood that is not Gaussian, a wrong score: the ratio of dense algebra."""
    n, h = 5, 0.7
    rng = np.random.default_rng(4)
    prior = sv.DiagonalMetric(jnp.asarray(rng.uniform(0.5, 2.0, n)))
    vectors, _ = np.linalg.qr(rng.normal(size=(n, 2)))
    metric = sv.LowRankMetric(jnp.asarray(vectors.T), jnp.array([1.5, -0.7]), prior)
    x, xi = jnp.asarray(0.3 * rng.normal(size=n)), jnp.asarray(3.0 * rng.normal(size=n))

    def likelihood(x):
        return -jnp.sum(jnp.cosh(x - 1.0)) / 3

    kernels = [
        sv.InfinityMala(likelihood, prior, step=h, metric=metric, score=s) for s in (None, lambda x: -(x**3) / 9)
    ]

    @jax.jit
    def run(x, xi):
        moved = []
        for kernel in kernels:
            state, info = kernel.move(kernel.init(x), {"normal": xi, "log_uniform": jnp.asarray(-jnp.inf)})
            moved.append((state.position, info.acceptance))
        return moved, jax.vmap(metric.apply)(jnp.eye(n))

    moved, A = run(x, xi)
    C, P = np.diag(prior.variance), np.linalg.inv(A)
    keep, beta = (1 - h / 2) / (1 + h / 2), math.sqrt(2 * h) / (1 + h / 2)
    scores = jax.grad(likelihood), lambda x: -(x**3) / 9
    for (y, acceptance), score in zip(moved, scores, strict=True):

        def mean(x, score=score):
            pull = np.asarray(score(x)) + (P - np.linalg.inv(C)) @ x
            return keep * x + h / (1 + h / 2) * A @ pull

        def log_density(x):
            return float(likelihood(x)) - 0.5 * x @ np.linalg.solve(C, x)

        x, y = np.asarray(x), np.asarray(y)
        np.testing.assert_allclose(y, mean(x) + beta * np.asarray(metric.sqrt(xi)), rtol=1e-12)
        forth, back = y - mean(x), x - mean(y)
        log_alpha = log_density(y) - log_density(x) + (forth @ P @ forth - back @ P @ back) / (2 * beta**2)
        assert log_alpha < -0.01
        np.testing.assert_allclose(np.log(acceptance), log_alpha, rtol=1e-10)


def test_wrong_input_is_named():
    grid = sv.Grid((8, 8), 1.0)
    with pytest.raises(ValueError, match="`length` must be positive"):
        sv.MaternField(grid, -1.0)
    with pytest.raises(ValueError, match="padding"):
        sv.MaternField(grid, 1.0, padding=-1)
    with pytest.raises(ValueError, match="no unique white noise"):
        sv.MaternField(grid, 1.0, padding=2).residual(jnp.zeros((8, 8)))
    with pytest.raises(ValueError, match="shape"):
        kernel = sv.Pcn(jnp.sum, sv.MaternField(grid, 1.0), step=0.1)
        kernel.step(jax.random.key(0), kernel.init(jnp.zeros(8)))
    with pytest.raises(TypeError, match="operator"):
        sv.Pcn(jnp.sum, None.__class__, step=0.1)
    prior, padded = sv.MaternField(grid, 1.0), sv.MaternField(grid, 1.0, padding=2)
    with pytest.raises(TypeError, match="LowRankMetric"):
        sv.InfinityMala(jnp.sum, prior, step=0.1, metric=sv.IdentityMetric())
    change = jnp.zeros((1, 8, 8)).at[0, 0, 0].set(1.0), jnp.ones(1)
    with pytest.raises(ValueError, match="with this prior"):
        sv.InfinityMala(jnp.sum, prior, step=0.1, metric=sv.LowRankMetric(*change, padded))
    change = jnp.zeros((1, 10, 10)).at[0, 0, 0].set(1.0), jnp.ones(1)
    with pytest.raises(ValueError, match="without padding"):
        sv.InfinityMala(jnp.sum, padded, step=0.1, metric=sv.LowRankMetric(*change, padded)).init(jnp.zeros((8, 8)))
