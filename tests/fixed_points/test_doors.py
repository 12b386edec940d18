"""The doors: Kepler's equation, statuses, what a failed solve differentiates to, pytrees, and wrong input."""

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv


def kepler(anomaly, mean, eccentricity):
    return mean + eccentricity * jnp.sin(anomaly)


def anomaly(mean, eccentricity):
    choices = {"method": sv.Picard(), "stability": 0, "rtol": 1e-14, "atol": 0.0}
    return sv.fixed_point(kepler, 1.0, mean, eccentricity, **choices).value


POINT = (0.8, 0.3)


@pytest.fixture(scope="module")
def exact():
    """E, dE/de = sin E / (1 - e cos E), and d2E/de2."""
    mean, e = POINT
    x = mean
    for _ in range(100):
        x = mean + e * math.sin(x)
    slope = math.sin(x) / (1 - e * math.cos(x))
    # From E' (1 - e cos E) = sin E: E'' (1 - e cos E) = 2 cos E E' - e sin E E'^2.
    return x, slope, (2 * math.cos(x) * slope - e * math.sin(x) * slope**2) / (1 - e * math.cos(x))


# ---- Values and derivatives ----


def test_kepler(exact):
    """With everything as it is by default but the tolerance."""
    solve = jax.jit(jax.value_and_grad(lambda e: sv.fixed_point(kepler, 1.0, 0.8, e, rtol=1e-14, atol=0.0).value))
    np.testing.assert_allclose(solve(0.3), exact[:2], rtol=1e-12)


@pytest.mark.parametrize("outer", [jax.jacfwd, pytest.param(jax.jacrev, marks=pytest.mark.slow)])
@pytest.mark.parametrize("inner", [pytest.param(jax.jacfwd, marks=pytest.mark.slow), jax.jacrev])
def test_second_derivatives_of_a_batch(inner, outer, exact):
    second = jax.jit(jax.vmap(outer(inner(anomaly, 1), 1), (None, 0)))(0.8, jnp.array([0.3, 0.3]))
    np.testing.assert_allclose(second, exact[2], rtol=1e-11)


def test_a_captured_traced_value_is_differentiated(exact):
    def closed(e):
        return sv.fixed_point(lambda x: 0.8 + e * jnp.sin(x), 1.0, method=sv.Picard(), rtol=1e-14, atol=0.0).value

    np.testing.assert_allclose(jax.jit(jax.grad(closed))(0.3), exact[1], rtol=1e-12)


@pytest.mark.parametrize("adjoint", ["one_step", "neumann", "unroll"])
def test_biased_and_unrolled_derivatives(adjoint, exact):
    """One step gives df/de alone; n terms more miss (e cos E)^(n + 1) of it; the iterations themselves, nothing."""
    x, slope, _ = exact
    rate = 0.3 * math.cos(x)
    expected = {"one_step": 1 - rate, "neumann": 1 - rate**4, "unroll": 1.0}[adjoint] * slope
    choice = sv.Adjoint(mode=adjoint, terms=3)

    def solve(e):
        return sv.fixed_point(
            kepler, 1.0, 0.8, e, method=sv.Picard(), rtol=1e-14, atol=0.0, max_steps=60, adjoint=choice
        ).value

    np.testing.assert_allclose(jax.grad(solve)(0.3), expected, rtol=1e-12)


def test_the_auxiliary_output_is_that_of_the_solution_and_differentiable(exact):
    def solve(e):
        def f(x, e):
            return 0.8 + e * jnp.sin(x), {"cosine": jnp.cos(x) * e, "label": 7}

        found = sv.fixed_point(f, 1.0, e, has_aux=True, rtol=1e-14, atol=0.0)
        assert found.aux["label"] == 7
        return found.aux["cosine"]

    x, slope, _ = exact
    value, gradient = jax.value_and_grad(solve)(0.3)
    np.testing.assert_allclose(value, 0.3 * math.cos(x), rtol=1e-12)
    np.testing.assert_allclose(gradient, math.cos(x) - 0.3 * math.sin(x) * slope, rtol=1e-11)


def test_pytrees_of_mixed_kinds():
    """A float32, a complex and an integer leaf: the last reaches the map as it is and is no unknown."""

    def f(tree, a):
        half = tree["z"] * 0.5j
        return {"x": 0.5 * tree["x"] + jnp.float32(1.0), "z": half + a * tree["n"], "n": tree["n"]}

    start = {"x": jnp.ones(2, jnp.float32), "z": jnp.zeros((), complex), "n": jnp.array(3)}

    def value(a):
        found = sv.fixed_point(f, start, a, rtol=1e-6, atol=0.0)
        return jnp.imag(found.value["z"]), found

    gradient, found = jax.grad(value, has_aux=True)(2.0)
    assert found.value["x"].dtype == jnp.float32 and found.value["n"] == 3
    np.testing.assert_allclose(found.value["x"], 2, rtol=1e-6)
    np.testing.assert_allclose(found.value["z"], 6 / (1 - 0.5j), rtol=1e-6)
    np.testing.assert_allclose(gradient, 3 * (1 / (1 - 0.5j)).imag, rtol=1e-6)


def test_single_precision_stays():
    found = sv.fixed_point(kepler, jnp.float32(1.0), jnp.float32(0.8), jnp.float32(0.3)).check()
    assert found.value.dtype == found.stats.residual.dtype == jnp.float32
    np.testing.assert_allclose(found.stats.tolerance, 1e-5 * (1 + found.value), rtol=1e-5)


def test_memory_does_not_grow_with_the_steps():
    def bytes_of(max_steps):
        def loss(a):
            f = lambda x, a: a * jnp.cos(x)  # noqa: E731
            return jnp.sum(
                sv.fixed_point(f, jnp.zeros(1000), a, max_steps=max_steps, method=sv.Picard(), stability=0).value
            )

        return jax.jit(jax.grad(loss)).lower(0.5).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(10_000) == bytes_of(10)


def test_new_values_trace_nothing():
    traces = itertools.count()

    def f(x, a):
        next(traces)
        return a * jnp.cos(x)

    for door in (sv.fixed_point, sv.root):
        door(f, jnp.full(3, 0.5), 0.5, method=sv.Picard(), rtol=1e-6)
        before = next(traces)
        door(f, jnp.full(3, 0.7), 0.7, method=sv.Picard(), rtol=1e-9)
        assert next(traces) == before + 1


# ---- When it stops, and how it says so ----


@pytest.mark.parametrize("damping", [1.0, 0.05])
def test_damping_does_not_alter_the_stop_test(damping):
    """The residual of the returned x, and not the length of the step, meets the tolerance."""
    found = sv.fixed_point(kepler, 1.0, 0.8, 0.3, method=sv.Picard(damping), rtol=1e-6, atol=0.0).check()
    x = float(found.value)
    np.testing.assert_allclose(found.stats.residual, abs(0.8 + 0.3 * math.sin(x) - x), rtol=1e-6)
    assert 0.1e-6 * x < float(found.stats.residual) <= 1e-6 * x
    # Each step multiplies the residual by 1 - damping (1 - e cos E), that is 0.854 damped to 0.957.
    assert damping == 1.0 or 200 < int(found.stats.iterations) < 350


def test_the_history_holds_the_residual_of_every_iterate():
    found = sv.fixed_point(kepler, 1.0, 0.8, 0.3, method=sv.Picard(), max_steps=50, history=True).check()
    history, steps = np.asarray(found.stats.history), int(found.stats.iterations)
    assert history.shape == (51,) and np.isnan(history[steps + 1 :]).all()
    np.testing.assert_allclose(history[0], abs(kepler(1.0, 0.8, 0.3) - 1.0), rtol=1e-12)
    assert history[steps] == found.stats.residual
    assert int(found.stats.evaluations) == steps + 1


def fails(f, x0, a, **choices):
    """Status, and the derivative of a solve of x = f(x, a)."""
    solve = jax.jit(
        jax.value_and_grad(
            lambda a: (lambda s: (jnp.sum(s.value), s))(sv.fixed_point(f, x0, a, **choices)), has_aux=True
        )
    )
    (_, found), slope = solve(a)
    assert bool(jnp.all(jnp.isfinite(found.value))) or found.status is sv.Status.NONFINITE
    return found, float(slope)


@pytest.mark.parametrize(
    ("f", "x0", "choices", "status"),
    [
        (lambda x, a: 2 * x + a, 1.0, {"method": sv.Picard()}, sv.Status.DIVERGED),
        (lambda x, a: a * jnp.cos(x), 1.0, {"method": sv.Picard(), "max_steps": 3}, sv.Status.MAX_STEPS),
        # No root: x^2 + 1 has a minimum.
        (lambda x, a: x + x**2 + a, 2.0, {"method": sv.Newton()}, sv.Status.STAGNATED),
        # It jumps to and fro between two points.
        (lambda x, a: a - x, 0.0, {"method": sv.Picard()}, sv.Status.STAGNATED),
        (lambda x, a: jnp.log(x) - a, 0.5, {"method": sv.Picard()}, sv.Status.NONFINITE),
        (lambda x, a: a * x, math.nan, {}, sv.Status.NONFINITE),
        # df/dx = 1 everywhere: Newton's matrix is zero.
        (lambda x, a: x + a, 1.0, {"method": sv.NewtonKrylov()}, sv.Status.LINEAR_FAILED),
    ],
    ids=["diverged", "max-steps", "no-root", "cycle", "logarithm", "nan-start", "singular"],
)
def test_a_failure_has_its_status_and_no_derivative(f, x0, choices, status):
    found, slope = fails(f, x0, 1.0, **choices)
    assert found.status is status
    assert math.isnan(slope)
    with pytest.raises(sv.SolverError, match=status.name):
        found.check()


UNROLL = sv.Adjoint(mode="unroll")


@pytest.mark.parametrize(
    ("f", "choices"),
    [
        # No iterate is better than the start, which does not depend on a.
        (lambda x, a: 2 * x + a, {"method": sv.Picard(), "max_steps": 50}),
        pytest.param(lambda x, a: a * jnp.cos(x), {"method": sv.Anderson(), "max_steps": 2}, marks=pytest.mark.slow),
    ],
    ids=["diverged", "max-steps"],
)
def test_an_unrolled_failure_has_no_derivative(f, choices):
    def solve(a):
        return sv.fixed_point(f, 1.0, a, stability=0, adjoint=UNROLL, **choices).value

    assert math.isnan(jax.grad(solve)(1.0)) and math.isnan(jax.jvp(solve, (1.0,), (1.0,))[1])


@pytest.mark.parametrize(
    "door", [sv.root, pytest.param(sv.steady_state, marks=pytest.mark.slow)], ids=["root", "steady-state"]
)
def test_a_start_of_nan_is_told(door):
    found = door(lambda x, a: 0.5 * x - a, jnp.array([1.0, math.nan]), 1.0)
    assert found.status is sv.Status.NONFINITE
    with pytest.raises(sv.SolverError, match="NONFINITE"):
        found.check()


@jax.custom_vjp
def reverse_only(x, a):
    return a * jnp.cos(x)


reverse_only.defvjp(
    lambda x, a: (a * jnp.cos(x), (x, a)), lambda kept, g: (-g * kept[1] * jnp.sin(kept[0]), g * jnp.cos(kept[0]))
)


def on_the_host(x, a):
    shape = jax.ShapeDtypeStruct((), jnp.float64)
    return jax.pure_callback(lambda x, a: np.asarray(a) * np.cos(x), shape, x, a, vmap_method="sequential")


@pytest.mark.parametrize("f", [reverse_only, on_the_host])
def test_functions_without_forward_mode(f):
    with pytest.raises(TypeError, match="stability=0"):
        sv.fixed_point(f, 1.0, 0.5, method=sv.Broyden())
    found = sv.fixed_point(f, 1.0, 0.5, method=sv.Broyden(), stability=0).check()
    x = float(found.value)
    np.testing.assert_allclose(x, 0.5 * math.cos(x), atol=1e-8)


@pytest.mark.slow
def test_reverse_mode_alone_suffices_for_a_gradient():
    def solve(a):
        choices = {"method": sv.Broyden(), "stability": 0, "rtol": 1e-13}
        return sv.fixed_point(reverse_only, 1.0, a, adjoint=sv.Adjoint(linear=sv.Gmres()), **choices).value

    x, slope = jax.value_and_grad(solve)(0.5)
    np.testing.assert_allclose(slope, math.cos(x) / (1 + 0.5 * math.sin(x)), rtol=1e-7)


@pytest.mark.slow
def test_inside_of_a_scan():
    """x_k = cos(x_k) / 2 + a x_(k-1), solved one after the other: (1 + sin(x_k) / 2) x_k' = x_(k-1) + a x_(k-1)'."""

    def last(a):
        def step(before, _):
            found = sv.fixed_point(lambda x, p: 0.5 * jnp.cos(x) + p, 0.0, a * before, rtol=1e-13, atol=0.0)
            return found.value, None

        return jax.lax.scan(step, jnp.ones(()), None, length=4)[0]

    x, slope = 1.0, 0.0
    for _ in range(4):
        push, push_slope = 0.3 * x, x + 0.3 * slope
        for _ in range(60):
            x = 0.5 * math.cos(x) + push
        slope = push_slope / (1 + 0.5 * math.sin(x))
    value, gradient = jax.jit(jax.value_and_grad(last))(0.3)
    np.testing.assert_allclose([value, gradient], [x, slope], rtol=1e-11)


def test_an_exact_start_costs_one_evaluation():
    found = sv.fixed_point(lambda x, a: a * x, jnp.zeros(3), 0.5).check()
    assert int(found.stats.evaluations) == 1 and int(found.stats.iterations) == 0


def test_unstable_keeps_its_derivative():
    """x = a x - 1 with a = 3: Newton solves it, iterating would leave it; dx/da = x / (1 - a)."""
    found, slope = fails(lambda x, a: a * x - 1, 0.0, 3.0, method=sv.Newton())
    assert found.status is sv.Status.UNSTABLE
    np.testing.assert_allclose([found.value, slope, found.stats.spectral_radius], [0.5, -0.25, 3], rtol=1e-12)
    with pytest.warns(UserWarning, match="UNSTABLE"):
        found.check()


# ---- Wrong input ----

# The door as users have it: without the checks of annotations that the tests switch on.
unchecked = inspect.unwrap(sv.fixed_point)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sv.fixed_point(lambda x: (x, x), 1.0), ValueError, "structure of x0.*has_aux"),
        (lambda: sv.fixed_point(lambda x: x[:1], jnp.ones(2)), ValueError, "shape and dtype of x0"),
        (lambda: sv.fixed_point(lambda x: x.astype(jnp.float32), jnp.ones(2)), ValueError, "dtype"),
        (lambda: sv.fixed_point(lambda x: x, jnp.array([1, 2])), TypeError, "no floating number.*int"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, rtol=1e-17), ValueError, "machine precision"),
        (lambda: sv.fixed_point(jnp.cos, jnp.float32(1.0), rtol=1e-8), ValueError, "machine precision"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, rtol=0.0, atol=0.0), ValueError, "both zero"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, atol=-1.0), ValueError, "negative"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, max_steps=0), ValueError, "max_steps"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, stability=-1), ValueError, "stability"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, method="anderson"), TypeError, "method"),
        (lambda: sv.fixed_point(lambda x: x, 1.0, has_aux=True), TypeError, "has_aux"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, rtol="1e-8"), ValueError, "rtol.*number"),
        (lambda: unchecked(jnp.cos, 1.0, adjoint="unroll"), TypeError, "must be an Adjoint"),
        (lambda: sv.fixed_point(jnp.cos, 1.0, method=sv.Anderson), TypeError, r"Anderson\(\)"),
        (lambda: sv.fixed_point(kepler, 1.0, 0.8, 0.3, sv.Picard()), TypeError, "keyword, method="),
        (lambda: sv.fixed_point(kepler, 1.0, 0.8, 0.3, sv.Adjoint()), TypeError, "keyword, adjoint="),
        (lambda: sv.root(lambda x: x[:1], jnp.ones(2)), ValueError, "shape and dtype of x0"),
        (
            lambda: sv.root(jnp.cos, 1.0, adjoint=sv.Adjoint(mode="unroll")),
            ValueError,
            "unroll.*not NewtonKrylov",
        ),
    ],
)
def test_wrong_input_is_told(call, error, words):
    with pytest.raises(error, match=words):
        call()


N = 100
# Not symmetric, with eigenvalues from 1 to 1e4: too much for a few products.
STIFF = jnp.diag(jnp.logspace(0, 4, N)) + jnp.diag(jnp.full(N - 1, 0.7), 1)
WEIGHTS = jax.random.normal(jax.random.key(3), (N,))


def stiff_slope(adjoint, rtol=1e-8):
    """The gradient of WEIGHTS . x by b where STIFF x = b: the solution of the transposed equation."""

    def value(b):
        found = sv.root(lambda x, b: STIFF @ x - b, jnp.zeros(N), b, method=sv.Newton(), rtol=rtol, adjoint=adjoint)
        return found.value @ WEIGHTS

    return jax.grad(value)(jnp.ones(N))


def test_adjoints_are_dense_or_preconditioned_as_told():
    exact = jnp.linalg.solve(STIFF.T, WEIGHTS)
    np.testing.assert_allclose(stiff_slope(sv.Adjoint(linear="dense")), exact, rtol=1e-10)
    short = sv.Gmres(max_steps=6)
    assert bool(jnp.all(jnp.isnan(stiff_slope(sv.Adjoint(linear=short)))))

    def upper(v, x, b):
        return jax.scipy.linalg.solve_triangular(STIFF, v)

    helped = stiff_slope(sv.Adjoint(linear=short, preconditioner=upper))
    np.testing.assert_allclose(helped, exact, rtol=1e-7, atol=1e-10)


def test_the_adjoint_is_solved_as_well_as_the_equation():
    """The relative residual of the gradient, itself the solution of the adjoint equation, follows rtol down."""
    matrix = 0.8 * jax.random.orthogonal(jax.random.key(4), N)

    def residual(rtol):
        def value(b):
            choices = {
                "method": sv.Picard(),
                "atol": 0.0,
                "adjoint": sv.Adjoint(linear=sv.Gmres(60), tolerance="match"),
            }
            return sv.fixed_point(lambda x, b: matrix @ x + b, jnp.zeros(N), b, rtol=rtol, **choices).value @ WEIGHTS

        slope = jax.grad(value)(jnp.ones(N))
        return float(jnp.linalg.norm(slope - matrix.T @ slope - WEIGHTS) / jnp.linalg.norm(WEIGHTS))

    for rtol in (1e-2, 1e-5, 1e-9):
        assert 1e-2 * rtol < residual(rtol) <= rtol
