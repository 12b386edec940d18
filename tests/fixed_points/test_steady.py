"""Steady states of time steppers: the Brusselator, its exact mean, and how few products it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from .oracles import brusselator, disc

A, B, ALPHA = 3.4, 1.0, 10.0


def symbol(n):
    """Eigenvalues of the five-point Laplacian on n x n periodic nodes with spacing 1 / (n - 1)."""
    k = 2 - 2 * np.cos(2 * np.pi * np.arange(n) / n)
    return -(k[:, None] + k) * (n - 1) ** 2


def diagonal(v, factor):
    return jnp.real(jnp.fft.ifft2(factor * jnp.fft.fft2(v)))


def linear_inverse(v, x, a, alpha):
    """Inverse of the Jacobian of the rates with the means of u and v in place of the fields: 2 x 2 blocks."""
    u, w = jnp.mean(x[0]), jnp.mean(x[1])
    diffusion = alpha * symbol(x.shape[-1])
    first, second = jnp.fft.fft2(v)
    p, q, s, t = 2 * u * w - a - 1 + diffusion, u**2, a - 2 * u * w, diffusion - u**2
    det = p * t - q * s
    return jnp.real(jnp.fft.ifft2(jnp.stack([(t * first - q * second) / det, (p * second - s * first) / det])))


def start(n):
    """The bumps of the published benchmark."""
    x = np.linspace(0, 1, n)
    bump = (x * (1 - x)) ** 1.5
    return jnp.stack([jnp.broadcast_to(22 * bump, (n, n)), jnp.broadcast_to(27 * bump[:, None], (n, n))])


def semi_implicit(dt):
    """(1 - dt alpha lap)^-1 (x + dt reaction): a stepper, and the inverse of 1 - dstep/dx for constant fields."""

    def step(x, a, b, alpha, source):
        factor = symbol(x.shape[-1])
        explicit = brusselator(x, a, b, alpha, source) - alpha * diagonal(x, factor)
        return diagonal(x + dt * explicit, 1 / (1 - dt * alpha * factor))

    def preconditioner(v, x, a, b, alpha, source):
        v = v - dt * alpha * diagonal(v, symbol(x.shape[-1]))
        return -linear_inverse(v, x, a, alpha) / dt

    return step, preconditioner


def mean_is_exact(solution, source):
    # Where the rates vanish, so does the mean of their sum: B - mean(u) + mean(source).
    np.testing.assert_allclose(jnp.mean(solution.value[0]), B + source.mean(), rtol=1e-10)


@pytest.mark.parametrize("n", [32, *(pytest.param(n, marks=pytest.mark.slow) for n in (64, 128))])
def test_brusselator_by_newton_krylov_takes_few_products_at_every_size(n):
    source = disc(n)

    def preconditioner(v, x, a, b, alpha, source):
        return linear_inverse(v, x, a, alpha)

    # Round-off of the finest Laplacian leaves residuals of 3e-8.
    method = sv.NewtonKrylov(preconditioner=preconditioner)
    found = sv.root(brusselator, start(n), A, B, ALPHA, source, method=method, rtol=1e-10, atol=1e-9).check()
    assert int(found.stats.products) <= 9
    mean_is_exact(found, source)
    if n == 128:
        # Of the benchmark of NonlinearSolve.jl.
        np.testing.assert_allclose(jnp.mean(found.value[0]), 1.15380859375, rtol=1e-10)
        np.testing.assert_allclose(jnp.max(found.value[0]), 1.15757900873, rtol=1e-10)


@pytest.mark.parametrize("n", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_steady_state_of_a_stepper(n):
    """Evaluations and products together, the estimate of the spectral radius apart; and the derivatives 0, 1, 0."""
    step, preconditioner = semi_implicit(1.0)
    source = disc(n)

    def solve(p):
        return sv.steady_state(step, start(n), *p, source, preconditioner=preconditioner, rtol=1e-10, atol=0.0)

    (_, found), slope = jax.jit(jax.value_and_grad(lambda p: ((s := solve(p)).value[0].mean(), s), has_aux=True))(
        jnp.array([A, B, ALPHA])
    )
    mean_is_exact(found, source)
    assert int(found.stats.evaluations) + int(found.stats.products) - 10 <= 20
    assert int(found.stats.products) - 10 <= 15
    # Beyond its Hopf bifurcation the reaction would leave this state: trace of the reaction A - 1 - mean(u)^2 > 0.
    assert found.status is sv.Status.UNSTABLE
    np.testing.assert_allclose(slope, [0, 1, 0], atol=1e-8)


@pytest.mark.slow
def test_below_the_hopf_bifurcation_the_state_is_stable():
    # The eigenvalues of the reaction are near -0.4 +- 1.1 i, so that an explicit step of 1 would be unstable, too.
    step, preconditioner = semi_implicit(0.1)
    found = sv.steady_state(step, start(16), 1.5, B, ALPHA, disc(16), preconditioner=preconditioner, rtol=1e-10)
    assert found.status is sv.Status.CONVERGED
    assert float(found.stats.spectral_radius) < 1
    mean_is_exact(found, disc(16))


def heat(u, source):
    """One explicit step towards the solution of u'' + source = 0, u = 0 at both ends."""
    padded = jnp.pad(u, 1)
    h = 1 / (u.size + 1)
    return u + 0.25 * (padded[:-2] - 2 * u + padded[2:] + h**2 * source)


@pytest.mark.slow
def test_a_black_box_without_preconditioner():
    """50 nodes: 2000 plain steps would gain a digit each 500; the answer is a parabola, exact on the grid."""
    x = np.arange(1, 51) / 51
    found = sv.steady_state(heat, jnp.zeros(50), 2.0, rtol=1e-12, atol=0.0).check()
    np.testing.assert_allclose(found.value, x * (1 - x), atol=1e-9)
    assert int(found.stats.evaluations) + int(found.stats.products) < 200


@pytest.mark.slow
def test_derivative_of_a_black_box():
    x = np.arange(1, 51) / 51
    slope = jax.jacfwd(lambda s: sv.steady_state(heat, jnp.zeros(50), s, rtol=1e-12, atol=0.0).value)(2.0)
    np.testing.assert_allclose(slope, x * (1 - x) / 2, atol=1e-9)


@pytest.mark.slow
def test_the_laminar_kolmogorov_flow_is_found_again():
    """u = a sin(2 y) / (4 nu + drag) from a start that is far from it, and its derivative with the viscosity."""
    grid = sv.Grid((16, 16), 2 * np.pi / 16)
    start = sv.PeriodicNavierStokes(grid, 0.5).velocity(
        sv.PeriodicNavierStokes(grid, 0.5).random_start(jax.random.key(0), peak_wavenumber=2, max_speed=0.3)
    )

    def step(velocity, viscosity):
        flow = sv.PeriodicNavierStokes(grid, viscosity, sv.Kolmogorov(2), 0.1)
        return flow.velocity(flow.step(flow.from_velocity(velocity), None, 0.1))

    def at_rest(viscosity):
        found = sv.steady_state(step, start, viscosity, rtol=1e-11, atol=0.0)
        return found.value, found

    velocity, slope, found = jax.jit(lambda nu: jax.jvp(at_rest, (nu,), (1.0,), has_aux=True))(0.5)
    assert found.check().status is sv.Status.CONVERGED
    speed, wave = 1 / (4 * 0.5 + 0.1), np.sin(2 * grid.axes()[1])
    # The slowest mode loses 1 - exp(-0.1 (nu + drag)) = 0.058 per step: so much larger than the residual is the error.
    np.testing.assert_allclose(velocity, np.stack(np.broadcast_arrays(speed * wave, np.zeros((16, 16)))), atol=1e-9)
    np.testing.assert_allclose(slope[0], np.broadcast_to(-4 * speed**2 * wave, (16, 16)), atol=1e-8)


def products(step, start, preconditioner):
    method = sv.NewtonKrylov(preconditioner=preconditioner)
    found = sv.steady_state(step, start, method=method, rtol=1e-10, atol=0.0, stability=0).check()
    return int(found.stats.products), found.value


def test_the_linear_part_of_a_stepper_as_preconditioner_of_a_pattern():
    """Stripes of Swift and Hohenberg: 14 products with the shift of their amplitude, 32 without a preconditioner."""
    grid = sv.Grid(64, 8 * np.pi / 64)
    equation, x = sv.SwiftHohenberg(grid, 0.3, stepper="etdrk2"), grid.axes()[0]
    start = 0.5 * jnp.cos(x) + 0.1 * jnp.cos(x / 2)

    def step(u):
        return equation.step(u, None, 0.1)

    # 3 mean(u^2) at the amplitude (4 r / 3)^(1/2) is 2 r; the stripes are steep, so a little more.
    count, pattern = products(step, start, equation.preconditioner(0.1, 0.9))
    assert count <= 18
    assert float(jnp.abs(equation.tendency(pattern)).max()) < 1e-7
    np.testing.assert_allclose(jnp.max(pattern), (4 * 0.3 / 3) ** 0.5, rtol=0.01)


@pytest.mark.slow
def test_the_friction_of_a_flow_as_preconditioner():
    """The laminar Kolmogorov flow, u = sin(2 y) / (4 nu): 15 products with, 67 without."""
    grid = sv.Grid((16, 16), 2 * np.pi / 16)
    flow = sv.PeriodicNavierStokes(grid, 0.5, sv.Kolmogorov(2), stepper="etdrk2")
    start = flow.random_start(jax.random.key(0), peak_wavenumber=2, max_speed=0.3)

    def step(state):
        return flow.step(state, None, 0.02)

    (few, state), (many, _) = (products(step, start, p) for p in (flow.preconditioner(0.02), None))
    assert few <= 18 and 3 * few < many
    np.testing.assert_allclose(
        flow.velocity(state)[0, 0], 0.5 * np.sin(2 * np.asarray(grid.axes()[1]).ravel()), atol=1e-7
    )


def test_the_preconditioner_of_a_stepper_leaves_alone_what_it_cannot_invert():
    """The mean velocity without drag, the mean of the vorticity; and modes that dealiasing drops."""
    grid = sv.Grid((8, 8), 2 * np.pi / 8)
    factors = sv.PeriodicNavierStokes(grid, 0.5).preconditioner(0.1).factors
    assert np.all(factors.mean == 1) and factors.modes[0, 0] == 1
    np.testing.assert_allclose(factors.modes[0, 1], 1 / (1 - np.exp(-0.1 * 0.5)), rtol=1e-12)
    burgers = sv.Burgers(sv.Grid(12, 2 * np.pi / 12), 0.1)
    dropped = jnp.cos(5 * burgers.grid.axes()[0])
    # Round-off of the wave, enlarged by the largest factor, 1 / (1 - e^(-0.01)) = 100.
    np.testing.assert_allclose(burgers.preconditioner(0.1)(dropped), dropped, atol=1e-12)


def test_handover_survives_a_first_method_that_explodes():
    """x + 40 (cos x - x) is expanding by 40 and more; Newton does not mind."""

    def step(x):
        return x + 40 * (jnp.cos(x) - x)

    found = sv.fixed_point(step, jnp.full(3, 0.2), method=sv.Handover(first=sv.Picard()))
    np.testing.assert_allclose(found.value, 0.7390851332151607, rtol=1e-9)
    assert found.status is sv.Status.UNSTABLE


def test_handover_takes_over_where_asked():
    """Once the residual has fallen tenfold, Newton needs a handful of steps where Picard takes thousands."""
    slow = sv.Handover(first=sv.Picard(), reduction=0.1, steps=1000)
    found = sv.fixed_point(lambda x: x + 0.01 * (jnp.cos(x) - x), jnp.zeros(2), method=slow, atol=0.0, rtol=1e-12)
    # Rate 1 - 0.01 (1 + sin x): a factor 10 takes between ln 10 / 0.017 and ln 10 / 0.01 steps.
    assert 230 * 0.5 < int(found.stats.iterations) < 240
    np.testing.assert_allclose(found.value, 0.7390851332151607, rtol=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match="preconditioner"):
        sv.steady_state(heat, jnp.zeros(3), 1.0, preconditioner=lambda v, x, s: v, method=sv.Picard())
    with pytest.raises(ValueError, match="reduction"):
        sv.Handover(reduction=1.0)
    with pytest.raises(ValueError, match="steps"):
        sv.Handover(steps=0)


def test_an_adjoint_solve_at_the_level_of_round_off_is_a_success_and_a_stuck_one_gives_nan():
    n = 64
    stiff = jnp.asarray((2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) * n**2)
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def slope(matrix, restart, tolerance):
        adjoint = sv.Adjoint(linear=sv.Gmres(restart=restart), tolerance=tolerance)
        start = jnp.zeros(len(matrix))

        def mean(p):
            return jnp.mean(sv.root(lambda x, p: matrix @ x - p, start, p, method=sv.Newton(), adjoint=adjoint).value)

        return jax.grad(mean)(jnp.ones(len(matrix)))

    # The product resolves eps |A| |x|, several hundred times eps |b| here: the tolerance cannot be met.
    exact = np.linalg.solve(np.asarray(stiff).T, np.full(n, 1 / n))
    np.testing.assert_allclose(slope(stiff, n, 1e-15), exact, rtol=1e-10)
    assert np.isnan(slope(turn, 1, 1e-8)).all()
