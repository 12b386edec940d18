"""The certificates pass what is right, catch what is wrong, and say so when they cannot tell."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core.status import SolverError
from solvers.core.taylor import clean_window, round_off
from solvers.core.verify import check_adjoint, check_gradient, check_order

MATRIX = jax.random.normal(jax.random.key(1), (30, 30))
POINT = jnp.linspace(0.3, 1.7, 30)


def network(x):
    return jnp.mean(jnp.tanh(MATRIX.astype(x.dtype) @ x) ** 2)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rates(report):
    return [r.rate for r in report.remainders]


def verdicts(report):
    return [r.verdict for r in report.remainders]


# ---- check_gradient: what is right passes ----


@pytest.mark.parametrize(
    "function", [network, rosenbrock, lambda x: jnp.sum(jnp.sin(x) ** 2), lambda x: 1e5 + jnp.sum(x**3)]
)
def test_right_derivatives_fall_at_one_two_three(function):
    report = check_gradient(function, POINT, hessian=True).check()
    # Three hundred times above round-off a rate is good to a few thousandths.
    np.testing.assert_allclose(rates(report), [1, 2, 3], atol=0.02)


def test_the_rates_hold_in_float32():
    report = check_gradient(rosenbrock, POINT.astype(jnp.float32), hessian=True).check()
    np.testing.assert_allclose(rates(report)[1:], [2, 3], atol=0.1)
    assert report.noise > 1e-8 * report.value
    assert check_gradient(network, POINT.astype(jnp.float32)).ok


def test_both_precisions_take_the_same_direction():
    double, single = (check_gradient(rosenbrock, POINT.astype(d)) for d in (jnp.float64, jnp.float32))
    assert abs(double.slope - single.slope) < 1e-4 * abs(double.slope)


def test_a_linear_function_is_exact():
    for point in (POINT, POINT.astype(jnp.float32)):
        report = check_gradient(lambda x: jnp.sum(x * MATRIX[0].astype(x.dtype)), point, hessian=True).check()
        assert verdicts(report) == ["rate", "round-off", "round-off"]
        assert "R1: at round-off" in str(report)


def test_a_quadratic_function_has_no_third_remainder():
    report = check_gradient(lambda x: jnp.sum((MATRIX @ x) ** 2), POINT, hessian=True).check()
    assert verdicts(report) == ["rate", "rate", "round-off"]


def test_a_constant_passes():
    assert check_gradient(lambda x: 3.0 + 0 * x[0], POINT, hessian=True).check().slope == 0


def test_a_vanishing_term_gives_a_higher_rate():
    # At zero the sine has no second derivative, and the cosine no first and no third.
    odd = check_gradient(lambda x: jnp.sum(jnp.sin(x)), jnp.zeros(5)).check()
    even = check_gradient(lambda x: jnp.sum(jnp.cos(x)), jnp.zeros(5), hessian=True).check()
    assert verdicts(odd) == ["rate", "higher"] and round(rates(odd)[1]) == 3
    assert round(rates(even)[0]) == 2 and round(rates(even)[2]) == 4


def test_noise_is_measured_and_steered_around():
    # A sum that cancels loses the digits of its largest term.
    def function(x):
        return jnp.cumsum(jnp.concatenate([jnp.array([1e6]), jnp.exp(x), jnp.array([-1e6])]))[-1]

    report = check_gradient(function, POINT).check()
    assert report.noise > 1e-12
    first = report.remainders[1]
    assert first.window and first.values[report.steps == first.window[1]] > 1e-10


def test_steps_that_blow_up_are_left_out():
    report = check_gradient(lambda x: jnp.sum(jnp.log(x)), jnp.full(3, 0.5), -jnp.ones(3), steps=2.0 ** -np.arange(12))
    assert not np.isfinite(report.remainders[1].values[0])
    window = report.check().remainders[1].window
    assert window and window[0] < 0.5


# ---- check_gradient: what is wrong fails ----


@pytest.mark.parametrize("error", [1e-2, 1e-4])
def test_a_wrong_gradient_is_caught(error):
    report = check_gradient(network, POINT, gradient=lambda x: (1 + error) * jax.grad(network)(x))
    assert not report.ok and report.resolution < error
    with pytest.raises(SolverError, match="R1") as caught:
        report.check()
    assert "FAILED" in str(caught.value) and f"{report.remainders[1].rate:.3f}" in str(caught.value)


def test_the_resolution_tells_what_would_show():
    right = check_gradient(rosenbrock, POINT)
    slightly, far = (
        check_gradient(rosenbrock, POINT, gradient=(1 + e * right.resolution) * jax.grad(rosenbrock)(POINT))
        for e in (0.1, 20)
    )
    assert slightly.ok and not far.ok


def test_a_wrong_gradient_of_a_linear_function_is_caught():
    report = check_gradient(lambda x: jnp.sum(x), POINT, gradient=jnp.full(30, 1 + 1e-6))
    assert verdicts(report) == ["rate", "wrong"]
    assert abs(rates(report)[1] - 1) < 0.01


def test_a_cut_gradient_is_caught():
    report = check_gradient(lambda x: jnp.sum(jax.lax.stop_gradient(x) ** 2), POINT)
    assert report.slope == 0 and verdicts(report)[1] == "wrong"


def test_a_wrong_hessian_is_caught():
    @jax.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda x, t: (x[0] ** 3, 3 * jax.lax.stop_gradient(x[0]) ** 2 * t[0]))
    report = check_gradient(lambda x: jnp.sum(cube(x)), POINT, hessian=True)
    assert verdicts(report) == ["rate", "rate", "wrong"]
    assert abs(rates(report)[2] - 2) < 0.02


def test_a_kink_is_caught():
    assert not check_gradient(lambda x: jnp.sum(jnp.abs(x - 0.5)), jnp.full(4, 0.5)).ok


def test_values_that_are_not_finite_fail():
    report = check_gradient(lambda x: jnp.sum(x) / 0.0, POINT)
    assert verdicts(report)[1] == "not finite"
    with pytest.raises(SolverError, match="not finite"):
        report.check()


def test_a_change_below_round_off_shows_nothing():
    report = check_gradient(lambda x: 1e12 + jnp.sum(jnp.sin(x)), POINT.astype(jnp.float32))
    assert verdicts(report)[1] == "no window" and not report.ok
    report = check_gradient(lambda x: 1e14 + jnp.sum(jnp.sin(x)), POINT)
    assert verdicts(report)[1] == "no window" and not report.ok
    assert "round-off" in str(report)


# ---- check_gradient: structure, arguments ----


class Medium(eqx.Module):
    speed: jax.Array
    density: float
    cells: jax.Array
    name: str = eqx.field(static=True)


def test_floating_leaves_move_and_all_others_stay():
    medium = Medium(jnp.linspace(1.0, 2.0, 5, dtype=jnp.float32), 2.5, jnp.arange(5), "rock")

    def function(m):
        assert m.name == "rock"
        # A Python number does not promote the arrays beside it.
        assert m.speed.dtype == jnp.float32 and m.density.dtype == jnp.float32
        return jnp.sum(m.speed[m.cells] ** 3) * m.density**2

    report = check_gradient(function, medium).check()
    assert abs(rates(report)[1] - 2) < 0.1


def test_complex_leaves_and_numpy_arrays():
    point = {"z": np.array([1.0 + 2.0j, -0.5j]), "n": np.arange(3), "x": np.array([0.3, 0.4])}
    function = lambda p: jnp.sum(jnp.abs(jnp.exp(p["z"])) ** 2) * jnp.sum(jnp.cos(p["x"]))  # noqa: E731
    check_gradient(function, point, hessian=True).check()


def test_the_direction_is_taken_as_given():
    direction = {"a": jnp.array([1.0, 0.0]), "k": 7}
    report = check_gradient(lambda p: jnp.sum(p["a"] ** 3) * p["k"], {"a": jnp.array([2.0, 5.0]), "k": 2}, direction)
    assert report.check().slope == pytest.approx(24.0, rel=1e-12)


def test_the_random_direction_is_scaled_to_the_point_and_follows_the_key():
    slopes = [check_gradient(jnp.sum, s * POINT, key=jax.random.key(k)).slope for s, k in ((1, 0), (1000, 0), (1, 1))]
    assert slopes[1] == pytest.approx(1000 * slopes[0], rel=1e-6)
    assert slopes[2] != slopes[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((lambda x: x, POINT), "one real floating number, got shape \\(30,\\)"),
        ((lambda x: jnp.sum(x) * 1j, POINT), "complex"),
        ((lambda x: 3, POINT), "dtype int"),
        ((jnp.sum, jnp.arange(3)), "no floating number"),
        ((jnp.sum, POINT, jnp.ones(29)), r"`direction` must have shape \(30,\), got \(29,\)"),
        ((jnp.sum, POINT, {"a": jnp.ones(30)}), "`direction`"),
        ((lambda p: jnp.sum(p["a"]), {"a": POINT}, {"b": POINT}), "`direction` has another structure"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        check_gradient(*arguments)


@pytest.mark.parametrize("steps", [(0.1, 0.05), (0.1, 0.05, -0.1), (0.1, 0.1, 0.1), (0.1, 0.05, float("nan"))])
def test_bad_steps_are_named(steps):
    with pytest.raises(ValueError, match="`steps`"):
        check_gradient(jnp.sum, POINT, steps=steps)


def test_a_gradient_of_wrong_shape_is_named():
    with pytest.raises(ValueError, match="`gradient`"):
        check_gradient(jnp.sum, POINT, gradient=jnp.ones(3))


def test_round_off_is_estimated_to_its_size():
    random = np.random.default_rng(0)
    found = [round_off(lambda h: 1.0 + h + h**2 + 1e-6 * random.standard_normal(), 2.2e-16) for _ in range(100)]
    # Eight values have seven differences, so one estimate is right to about a factor of three.
    assert 0.8e-6 < np.sqrt(np.mean(np.square(found))) < 1.2e-6
    assert 2e-7 < min(found) and max(found) < 3e-6


@pytest.mark.parametrize(
    ("clean", "window"),
    [
        ("00000", None),
        ("11000", None),
        ("11100", (0, 3)),
        ("1111111", (2, 7)),
        ("1110110", (0, 3)),
        ("0111101", (1, 5)),
    ],
)
def test_the_window_is_the_last_clean_run(clean, window):
    found = clean_window(np.array([c == "1" for c in clean]))
    assert (found and (found.start, found.stop)) == window


# ---- check_adjoint ----


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float64, 1e-12), (jnp.float32, 1e-3)])
def test_the_adjoint_of_a_matrix_and_of_a_loop(dtype, bound):
    def loop(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(MATRIX.astype(dtype) @ c), c), x, length=50)

    report = check_adjoint(loop, POINT.astype(dtype)).check()
    assert report.error < report.bound < bound
    assert str(report).endswith("passed")


def test_a_wrong_transpose_is_caught():
    wrong = lambda x: jax.custom_derivatives.linear_call(lambda _, y: MATRIX @ y, lambda _, z: MATRIX @ z, (), x)  # noqa: E731
    report = check_adjoint(wrong, POINT)
    assert not report.ok and report.error > 1e-3
    with pytest.raises(SolverError, match="FAILED"):
        report.check()


def test_the_given_vectors_are_used():
    report = check_adjoint(lambda x: MATRIX @ x, POINT, tangent=jnp.ones(30), cotangent=jnp.ones(30)).check()
    assert report.forward == pytest.approx(float(MATRIX.sum()), rel=1e-12)
    again = check_adjoint(lambda x: MATRIX @ x, POINT, key=jax.random.key(3))
    assert again.forward != check_adjoint(lambda x: MATRIX @ x, POINT).forward


def test_only_floating_leaves_are_compared():
    def function(p):
        return {"z": jnp.exp(1j * p["x"]), "count": jnp.arange(3), "name": None, "y": p["x"][p["index"]] ** 2}

    check_adjoint(function, {"x": POINT, "index": jnp.array([3, 1])}).check()


def test_a_derivative_of_zero_is_pointed_out():
    assert "does not depend" in str(check_adjoint(lambda x: jnp.round(x), POINT).check())


def test_an_adjoint_that_is_not_finite_fails():
    assert not check_adjoint(lambda x: jnp.sqrt(x), jnp.zeros(3)).ok


def test_the_bound_can_be_set():
    assert not check_adjoint(lambda x: MATRIX @ jnp.exp(x), POINT, tolerance=0.0, key=jax.random.key(5)).error < 0
    assert check_adjoint(lambda x: x, POINT, tolerance=0.5).bound == 0.5


@pytest.mark.parametrize(
    ("function", "point", "more", "words"),
    [
        (jnp.sin, jnp.arange(3), {}, "`point` holds no floating"),
        (lambda x: jnp.arange(3), POINT, {}, "returns no floating"),
        (jnp.sin, POINT, {"tangent": jnp.ones(3)}, "`tangent`"),
        (jnp.sin, POINT, {"cotangent": jnp.ones(3)}, "`cotangent`"),
    ],
)
def test_bad_input_of_the_dot_product_is_named(function, point, more, words):
    with pytest.raises(ValueError, match=words):
        check_adjoint(function, point, **more)


# ---- check_order ----


def test_the_order_of_a_difference_quotient():
    def error(n):
        h = 1 / n
        return abs((math.sin(1 + h) - math.sin(1 - h)) / (2 * h) - math.cos(1))

    report = check_order(error, (10, 20, 40, 80), expected=2, tolerance=0.01).check()
    assert len(report.slopes) == 3
    assert not check_order(error, (10, 20, 40), expected=4).ok


def test_errors_can_be_given_and_coarse_grids_do_not_decide():
    errors = [1.0] + [n**-4.0 for n in (20, 30, 50)]
    report = check_order(jnp.array(errors), (10, 20, 30, 50), 4).check()
    assert report.fit == pytest.approx(4, abs=1e-6)


def test_a_wrong_order_raises_with_the_table():
    with pytest.raises(SolverError, match=r"order 1\.000 .* expected 2 .*FAILED"):
        check_order([0.1, 0.05, 0.025], (10, 20, 40), 2).check()


@pytest.mark.parametrize(
    ("error", "sizes", "words"),
    [
        ([1.0, 0.5], (1, 2), "at least three"),
        ([1.0, 0.5, 0.25], (0.4, 0.2, 0.1), "not spacings"),
        ([1.0, 0.5], (1, 2, 4), "one number per size"),
        ([1.0, 0.5, 0.0], (1, 2, 4), "positive and finite"),
        ([1.0, 0.5, float("nan")], (1, 2, 4), "positive and finite"),
        (lambda n: [1.0, 2.0], (1, 2, 4), "one number per size"),
    ],
)
def test_bad_input_of_the_order_is_named(error, sizes, words):
    with pytest.raises(ValueError, match=words):
        check_order(error, sizes, 2)


# ---- all reports ----


def test_reports_are_frozen_and_short():
    reports = (
        check_gradient(network, POINT, hessian=True),
        check_adjoint(jnp.sin, POINT),
        check_order([1.0, 0.25, 0.0625], (1, 2, 4), 2),
    )
    for report in reports:
        assert report.check() is report
        assert max(map(len, str(report).splitlines())) <= 120
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(report, dataclasses.fields(report)[0].name, 1.0)


def test_the_change_of_the_function_itself_must_fall_too():
    """Whatever the other remainders say: without rate 1 of f(x + h d) - f(x) there is no derivative."""
    report = check_gradient(network, POINT, jnp.ones(30)).check()
    jumps = dataclasses.replace(report.remainders[0], rate=0.5, verdict="wrong")
    failed = dataclasses.replace(report, remainders=(jumps, *report.remainders[1:]))
    assert not failed.ok and "R0: falls too slowly" in str(failed)
