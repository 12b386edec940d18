"""Semilinear equations against exact solutions, conservation laws and published numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares
from scipy.special import ive

import solvers as sv

EPS = np.finfo(float).eps
CIRCLE = sv.Grid(shape=96, spacing=2 * np.pi / 96)
X = CIRCLE.axes()[0]


def cole_hopf(x, viscosity, time):
    """u = -2 nu phi_x / phi from u = sin x, phi = sum I_n(1 / (2 nu)) exp(-n^2 nu t) cos(n x)."""
    n = np.arange(1, 40)
    weights = 2 * ive(n, 0.5 / viscosity) * np.exp(-(n**2) * viscosity * time)
    angle = np.multiply.outer(x, n)
    phi = ive(0, 0.5 / viscosity) + np.cos(angle) @ weights
    return 2 * viscosity * (np.sin(angle) @ (n * weights)) / phi


def march(equation, state, time, steps):
    """A run with the step compiled once for all time steps."""
    step = jax.jit(lambda stepper, u: stepper.step(u, None))
    stepper = equation.stepper(jnp.asarray(time / steps))
    u = stepper.enter(state)
    for _ in range(steps):
        u = step(stepper, u)
    return np.asarray(stepper.leave(u))


# ---- Burgers


@pytest.mark.parametrize(("stepper", "order", "counts"), [("etdrk2", 2, (80, 160, 320)), ("etdrk4", 4, (20, 40, 80))])
def test_burgers_against_cole_hopf_and_the_order_in_time(stepper, order, counts):
    equation, exact = sv.Burgers(CIRCLE, 0.2, stepper=stepper), cole_hopf(X, 0.2, 1.0)
    errors = [np.max(np.abs(march(equation, jnp.sin(X), 1.0, n) - exact)) for n in counts]
    sv.check_order(errors, counts, expected=order).check()
    assert errors[-1] < {2: 1e-4, 4: 1e-8}[order]


def test_burgers_of_a_vector_against_cole_hopf():
    """u = -2 nu grad phi / phi for any solution phi > 0 of the heat equation."""
    grid, nu, time = sv.Grid(shape=(32, 32), spacing=2 * np.pi / 32), 0.3, 0.5
    x, y = np.meshgrid(*grid.axes(), indexing="ij")

    def exact(t):
        a, b = 0.5 * np.exp(-2 * nu * t), 0.3 * np.exp(-nu * t)
        phi = 1 + a * np.cos(x) * np.cos(y) + b * np.sin(y)
        slopes = np.stack([-a * np.sin(x) * np.cos(y), -a * np.cos(x) * np.sin(y) + b * np.cos(y)])
        return -2 * nu * slopes / phi

    found = march(sv.Burgers(grid, nu), jnp.asarray(exact(0.0)), time, 50)
    # Modes above 10 are dropped; those of phi^-1 fall by about a third each.
    assert np.max(np.abs(found - exact(time))) < 1e-5


def test_scalar_burgers_moves_along_the_diagonal():
    """u = w(x + y): w_t + 2 w w_s = 2 nu w_ss, Burgers' equation in the time 2 t."""
    grid = sv.Grid(shape=(48, 48), spacing=2 * np.pi / 48)
    s = np.add.outer(*grid.axes())
    found = march(sv.Burgers(grid, 0.5, scalar=True), jnp.sin(s), 0.3, 40)
    assert np.max(np.abs(found - cole_hopf(s, 0.5, 0.6))) < 1e-7


# ---- Waves


def test_a_soliton_of_korteweg_and_de_vries_keeps_shape_and_speed():
    speed, time = 1.5, 4.0
    grid = sv.Grid(shape=144, spacing=36 / 144, origin=-18.0)

    def soliton(t):
        away = (grid.axes()[0] - speed * t + 18) % 36 - 18
        return 0.5 * speed / np.cosh(0.5 * np.sqrt(speed) * away) ** 2

    found = march(sv.KortewegDeVries(grid), jnp.asarray(soliton(0.0)), time, 800)
    # The images at a distance of one period are exp(-sqrt(c) 18) = 3e-10.
    assert np.max(np.abs(found - soliton(time))) < 1e-7
    np.testing.assert_allclose(found.mean(), soliton(0.0).mean(), rtol=1e-12)


def test_a_soliton_of_schroedinger_stands_still_and_keeps_its_norm():
    grid = sv.Grid(shape=288, spacing=36 / 288, origin=-18.0)
    kappa, height = 2.0, 0.9
    start = height / np.cosh(np.sqrt(kappa) * height * grid.axes()[0]) + 0j
    equation = sv.NonlinearSchroedinger(grid, kappa)
    exact = start * np.exp(0.5j * kappa * height**2)
    errors = [np.max(np.abs(march(equation, jnp.asarray(start), 1.0, n) - exact)) for n in (20, 40, 80)]
    sv.check_order(errors, (20, 40, 80), expected=4).check()
    found = march(equation, jnp.asarray(start), 1.0, 160)
    np.testing.assert_allclose(np.sum(abs(found) ** 2), np.sum(abs(start) ** 2), rtol=1e-7)


def test_both_forms_of_kuramoto_and_sivashinsky_agree():
    """u = h_x solves the conservative form if h solves the other."""
    grid = sv.Grid(shape=48, spacing=22 / 48)
    modes, h = sv.Modes(grid), jnp.asarray(sv.sine_sum(grid, [1, 2, 3], [1.0, 2.0, 0.5], [0.0, 1.0, 2.0]))

    def slope(field):
        return modes.to_field(modes.derivative(modes.to_modes(field), 0))

    combustion = sv.KuramotoSivashinsky(grid, form="combustion").tendency(h)
    np.testing.assert_allclose(slope(combustion), sv.KuramotoSivashinsky(grid).tendency(slope(h)), atol=1e-12)


@pytest.mark.parametrize(("waves", "height", "energy"), [(2, 1.0, 0.4382), (3, 3.0, 1.5876)])
def test_equilibria_of_kuramoto_and_sivashinsky(waves, height, energy):
    """Energies mean(u^2) / 2 of the equilibria E2 and E3 at L = 22: Cvitanovic, Davidchack and Siminos, SIAM Journal on
    Applied Dynamical Systems 9 (2010), 1, table 5.1."""
    grid = sv.Grid(shape=48, spacing=22 / 48)
    equation = sv.KuramotoSivashinsky(grid)
    rate = jax.jit(lambda u: jnp.append(equation.tendency(u), jnp.mean(u)))
    slope = jax.jit(jax.jacfwd(lambda u: jnp.append(equation.tendency(u), jnp.mean(u))))
    start = height * np.sin(2 * np.pi * waves * grid.axes()[0] / 22)
    found = least_squares(
        lambda u: np.asarray(rate(u)), start, jac=lambda u: np.asarray(slope(u)), xtol=1e-14, gtol=1e-14
    )
    assert np.max(np.abs(found.fun)) < 1e-10
    np.testing.assert_allclose(np.mean(found.x**2) / 2, energy, atol=5.1e-5)


# ---- Reaction and patterns


@pytest.mark.parametrize("make", [sv.AllenCahn, sv.CahnHilliard])
def test_energy_of_phases_never_increases(make):
    grid, width = sv.Grid(shape=(24, 24), spacing=0.5), 0.7
    modes = sv.Modes(grid)
    start = sv.random_field(grid, jax.random.key(1), 1.5, rms=0.4)

    def energy(u):
        slopes = [modes.to_field(modes.derivative(modes.to_modes(u), axis)) for axis in (0, 1)]
        return jnp.mean(width**2 / 2 * sum(s**2 for s in slopes) + (1 - u**2) ** 2 / 4), jnp.mean(u)

    run = sv.simulate(make(grid, width), start, steps=300, dt=0.02, observe=energy, every=5).check()
    energies, means = run.observed
    assert np.all(np.diff(energies) < 0) and energies[-1] < 0.85 * energies[0]
    if make is sv.CahnHilliard:
        np.testing.assert_allclose(means, start.mean(), atol=300 * EPS)


def test_a_fisher_front_travels_at_its_speed():
    """u = (1 + exp(x / sqrt(6) - 5 t / 6))^-2 with D = r = 1: Ablowitz and Zeppetella, Bulletin of Mathematical Biology
    41 (1979), 835."""
    grid = sv.Grid(shape=256, spacing=160 / 256, origin=-80.0)
    x = grid.axes()[0]

    def exact(t):
        return (1 + np.exp((np.abs(x) - 20) / np.sqrt(6) - 5 * t / 6)) ** -2

    found = march(sv.FisherKPP(grid, 1.0), jnp.asarray(exact(0.0)), 6.0, 120)
    # The two fronts meet with a kink of slope 2e-4 at x = 0, which stays behind them.
    ahead = np.abs(x) > 15
    assert np.max(np.abs(found - exact(6.0))[ahead]) < 1e-5


def test_gray_scott_has_its_fixed_states_and_reacts_like_the_ordinary_equation():
    grid, feed, kill = sv.Grid(shape=(6, 6), spacing=1.0), 0.04, 0.05
    equation = sv.GrayScott(grid, (0.1, 0.05), feed, kill)
    root = np.sqrt(1 - 4 * (feed + kill) ** 2 / feed)
    for u in (1.0, (1 + root) / 2, (1 - root) / 2):
        state = jnp.stack([jnp.full((6, 6), u), jnp.full((6, 6), feed * (1 - u) / (feed + kill))])
        assert np.max(np.abs(equation.tendency(state))) < 8 * EPS

    def rate(t, y):
        return [-y[0] * y[1] ** 2 + feed * (1 - y[0]), y[0] * y[1] ** 2 - (feed + kill) * y[1]]

    exact = solve_ivp(rate, (0, 10), [0.6, 0.4], rtol=1e-11, atol=1e-12).y[:, -1]
    found = march(equation, jnp.stack([jnp.full((6, 6), 0.6), jnp.full((6, 6), 0.4)]), 10.0, 100)
    np.testing.assert_allclose(found[:, 2, 3], exact, rtol=1e-7)


def test_small_waves_of_swift_and_hohenberg_grow_at_their_rates():
    grid, r, k0, size = sv.Grid(shape=48, spacing=8 * np.pi / 48), 0.2, 1.1, 1e-7
    waves = np.arange(1, 8)
    start = sv.sine_sum(grid, waves, np.full(7, size), waves.astype(float))
    found = sv.Modes(grid).to_modes(march(sv.SwiftHohenberg(grid, r, k0), start, 2.0, 20))
    rates = r - (k0**2 - (waves / 4) ** 2) ** 2
    # The cubic term is size^2 = 1e-14 of the linear one; round-off of the seven waves together.
    np.testing.assert_allclose(2 * np.abs(found[1:8]) / size, np.exp(2.0 * rates), atol=1e-11)


# ---- Derivatives


def through(make, start, steps=4, dt=0.05):
    def value(p):
        final = sv.simulate(make(p["coefficients"]), p["start"], steps=steps, dt=dt, adjoint=sv.StoreAll()).final
        return jnp.sum(final.real**2 * final.real[..., ::-1])

    return value


SMALL = sv.Grid(shape=16, spacing=2 * np.pi / 16)
WAVE = 0.5 + 0.3 * np.sin(SMALL.axes()[0])
PROBLEMS = {
    "KuramotoSivashinsky": (lambda c: sv.KuramotoSivashinsky(SMALL, "combustion", c[0], c[1]), WAVE, 2),
    "GrayScott": (lambda c: sv.GrayScott(SMALL, c[:2], c[2], c[3]), np.stack([WAVE, 0.2 * WAVE**2]), 4),
    "NonlinearSchroedinger": (lambda c: sv.NonlinearSchroedinger(SMALL, c[0]), WAVE * np.exp(1j * WAVE), 1),
}


@pytest.mark.parametrize(
    "name", [name if name == "GrayScott" else pytest.param(name, marks=pytest.mark.slow) for name in PROBLEMS]
)
def test_gradients_with_respect_to_coefficients_and_state(name):
    make, start, count = PROBLEMS[name]
    value = through(make, start)
    point = {"coefficients": jnp.linspace(0.3, 0.5, count), "start": jnp.asarray(start)}
    sv.check_gradient(value, point).check()
    sv.check_adjoint(value, point).check()


def test_the_slope_with_respect_to_the_length_of_the_box_by_rescaling():
    """u / L in units of L obeys Burgers' equation with nu / L^2: against central differences over real boxes."""
    nodes, wave = 16, jnp.asarray(0.5 + 0.3 * np.sin(2 * np.pi * np.arange(16) / 16))

    @jax.jit
    def scaled(length):
        equation = sv.Burgers(sv.Grid(nodes, 1 / nodes), 0.1 / length**2)
        return length * sv.simulate(equation, wave / length, steps=4, dt=0.1, adjoint=sv.StoreAll()).final

    def real(length):
        return sv.simulate(sv.Burgers(sv.Grid(nodes, length / nodes), 0.1), wave, steps=4, dt=0.1).final

    h = 1e-4
    value, slope = jax.jvp(scaled, (3.0,), (1.0,))
    np.testing.assert_allclose(value, real(3.0), atol=1e-14)
    # The third derivative is of the size of the value over L^3; h^2 / 6 of it, and round-off over h.
    np.testing.assert_allclose(slope, (real(3.0 + h) - real(3.0 - h)) / (2 * h), atol=1e-9)
    assert jnp.max(jnp.abs(slope)) > 1e-3


# ---- All equations in two and three dimensions

MANY = {
    "KortewegDeVries": sv.KortewegDeVries,
    "KuramotoSivashinsky": lambda grid, **more: sv.KuramotoSivashinsky(grid, "combustion", **more),
    "NonlinearSchroedinger": sv.NonlinearSchroedinger,
    "FisherKPP": lambda grid, **more: sv.FisherKPP(grid, 0.3, **more),
    "SwiftHohenberg": lambda grid, **more: sv.SwiftHohenberg(grid, 0.2, **more),
    "AllenCahn": lambda grid, **more: sv.AllenCahn(grid, 0.4, **more),
    "CahnHilliard": lambda grid, **more: sv.CahnHilliard(grid, 0.4, **more),
    "GrayScott": lambda grid, **more: sv.GrayScott(grid, (0.2, 0.1), **more),
    "Burgers": lambda grid, **more: sv.Burgers(grid, 0.1, **more),
    "PeriodicWave": lambda grid, stepper: sv.PeriodicWave(grid, 1.3),
}


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        *((name, 3) for name in MANY),
        *(pytest.param(name, 2, marks=pytest.mark.slow) for name in list(MANY)[:5]),
        pytest.param("PeriodicWave", 1, marks=pytest.mark.slow),
    ],
)
def test_a_short_step_follows_the_tendency(name, axes):
    """Central differences in time of the step; of a field along the first axis the tendency is the one on one axis."""
    shape = (8, 7, 6)[:axes]
    grids = sv.Grid(shape, 0.8), sv.Grid(shape[:1], 0.8)
    equation, line = (MANY[name](grid, stepper="etdrk2") for grid in grids)
    lead = {"GrayScott": (2,), "PeriodicWave": (2,), "Burgers": (axes,)}.get(name, ())
    random = np.random.default_rng(0)
    state = 0.5 + 0.2 * random.normal(size=(*lead, *shape))
    if name == "NonlinearSchroedinger":
        state = state + 0.2j * random.normal(size=shape)

    @jax.jit
    def both(state):
        after, before = (equation.step(state, None, dt) for dt in (1e-4, -1e-4))
        return (after - before) / 2e-4, equation.tendency(state, None)

    found, rate = both(jnp.asarray(state))
    # L is -32 at most (two waves in 6.4, k^2 = 11 from three axes, to the power of two with a small factor): (L dt)^2.
    np.testing.assert_allclose(found, rate, atol=3e-5 * np.max(np.abs(rate)))
    assert np.max(np.abs(rate)) > 1e-2
    if name == "Burgers" or axes == 1:
        return
    profile = state[(..., slice(None), *(0,) * (axes - 1))]
    lifted = np.broadcast_to(profile.reshape(*lead, -1, *(1,) * (axes - 1)), state.shape)
    alone = np.asarray(jax.jit(lambda u: line.tendency(u, None))(jnp.asarray(profile))).reshape(
        *lead, -1, *(1,) * (axes - 1)
    )
    np.testing.assert_allclose(both(jnp.asarray(lifted))[1], np.broadcast_to(alone, state.shape), atol=1e-12)


def test_reverse_mode_keeps_the_modes_of_each_step_and_no_more():
    grid = sv.Grid(shape=512, spacing=2 * np.pi / 512)
    equation = sv.Burgers(grid, 0.1)

    def memory(steps):
        def value(nu, u):
            equation = sv.Burgers(grid, nu)
            return jnp.sum(sv.simulate(equation, u, steps=steps, dt=1e-3, adjoint=sv.StoreAll()).final ** 2)

        compiled = jax.jit(jax.grad(value, (0, 1))).lower(0.1, jnp.sin(grid.axes()[0])).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    modes = equation.space.shape[0] * 16
    assert (memory(384) - memory(192)) / 192 < 1.1 * modes


# ---- The general struct


def test_a_users_own_equation_is_the_built_in_one():
    def symbol(d, p):
        return p["r"] - (p["k"] ** 2 + d.laplacian) ** 2

    def products(u, d, p):
        return -d.modes(d.field(u) ** 3)

    own = sv.Semilinear(CIRCLE, symbol, products, {"r": 0.3, "k": 1})
    start = jnp.sin(X) + 0.1 * jnp.cos(3 * X)
    np.testing.assert_array_equal(march(own, start, 1.0, 10), march(sv.SwiftHohenberg(CIRCLE, 0.3), start, 1.0, 10))


def test_new_values_need_no_new_trace():
    # A list would be seen to change.
    traces = itertools.count()

    def symbol(d, p):
        next(traces)
        return p * d.laplacian

    def run(viscosity, start, dt):
        equation = sv.Semilinear(SMALL, symbol, _square, viscosity)
        return sv.simulate(equation, start, steps=3, dt=dt).check().final

    first = run(0.1, jnp.asarray(WAVE), 0.1)
    traced = next(traces)
    second = run(0.2, jnp.asarray(WAVE) + 1, 0.05)
    # Adjoint planning and shapes look at the step once more per call, outside of the compiled program.
    assert traced > 0 and next(traces) - traced - 1 <= traced // 2
    assert not np.allclose(first, second)


def _square(u, d, p):
    return d.modes(d.field(u) ** 2)


def test_a_batch_is_a_loop():
    starts = jnp.stack([jnp.asarray(WAVE), jnp.asarray(WAVE) ** 2])

    def run(start, viscosity):
        return sv.simulate(sv.Burgers(SMALL, viscosity), start, steps=3, dt=0.1).final

    together = jax.vmap(run)(starts, jnp.array([0.1, 0.3]))
    apart = jnp.stack([run(starts[0], 0.1), run(starts[1], 0.3)])
    np.testing.assert_allclose(together, apart, atol=8 * EPS)


def test_single_precision_stays_single_and_is_accurate():
    run = sv.simulate(sv.Burgers(CIRCLE, 0.2), jnp.sin(X).astype(jnp.float32), steps=40, dt=0.025).check()
    assert run.final.dtype == jnp.float32
    assert np.max(np.abs(run.final - cole_hopf(X, 0.2, 1.0))) < 40 * np.finfo(np.float32).eps


def test_a_run_that_blows_up_says_so():
    # u_t = u^2 from u = 1 is infinite at t = 1.
    equation = sv.Semilinear(SMALL, lambda d, p: 0 * d.laplacian, _square)
    run = sv.simulate(equation, jnp.ones(16), steps=64, dt=0.1)
    assert run.status is sv.Status.NONFINITE
    with pytest.raises(sv.SolverError, match="not finite"):
        run.check()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sv.Burgers(CIRCLE, 0.0), "`viscosity` must be positive"),
        (lambda: sv.Burgers(CIRCLE, 0.1, stepper="rk4"), "`stepper` must be one of"),
        (lambda: sv.Burgers(CIRCLE, 0.1, dealias="0.5"), "`dealias` must be one of"),
        (lambda: sv.KuramotoSivashinsky(CIRCLE, form="divergence"), '"conservative" or "combustion"'),
        (lambda: sv.KuramotoSivashinsky(sv.Grid((8, 8), 1.0)), "has one axis"),
        (lambda: sv.Semilinear(CIRCLE, lambda d, p: d.laplacian, parameters={"nu": np.nan}), r"parameters\['nu'\]"),
        (lambda: sv.Semilinear(CIRCLE, lambda d, p: d.laplacian, channels=0), "`channels` must be"),
        (
            lambda: sv.simulate(sv.Burgers(CIRCLE, 0.1), jnp.zeros(32), steps=1, dt=0.1),
            r"of shape \(96,\), got \(32,\)",
        ),
        (lambda: sv.simulate(sv.Burgers(CIRCLE, 0.1), jnp.zeros(96) + 0j, steps=1, dt=0.1), "must be real"),
        (lambda: sv.simulate(sv.NonlinearSchroedinger(CIRCLE), jnp.zeros(96), steps=1, dt=0.1), "must be complex"),
        (lambda: sv.simulate(sv.Burgers(CIRCLE, 0.1), jnp.full(96, jnp.inf), steps=1, dt=0.1), "must be finite"),
        (lambda: sv.simulate(sv.Burgers(CIRCLE, 0.1), jnp.zeros(96), steps=1, dt=-0.1), "`dt` must be positive"),
        (
            lambda: sv.simulate(sv.Burgers(CIRCLE, 0.1), jnp.zeros(96), steps=2, dt=0.1, inputs=jnp.zeros(2)),
            r"shape \(steps, \*state.shape\)",
        ),
        (lambda: sv.Semilinear(CIRCLE, lambda d, p: jnp.ones(5)).stepper(jnp.ones(())), "must return an array that"),
        (
            lambda: sv.Semilinear(CIRCLE, lambda d, p: d.laplacian, lambda u, d, p: d.field(u)).tendency(jnp.sin(X)),
            "`nonlinear` must return modes",
        ),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_formulas_must_be_functions():
    with pytest.raises(TypeError):
        sv.Semilinear(CIRCLE, 1.0)
