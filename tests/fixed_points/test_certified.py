"""Gradients with an estimate of their error: how true it is on three families, what it costs, where it degrades."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from .oracles import bratu_1d, deq_cell, deq_weights, h_map, h_mean_slope


def deq():
    """A layer of an equilibrium model with 60 unknowns, gradient by its inputs from a dense solve."""
    weights = deq_weights(jax.random.key(0), 60, 0.97)
    push = jax.random.normal(jax.random.key(1), (60,))
    y = jnp.zeros(60)
    for _ in range(400):
        y = deq_cell(y, weights, push)
    s = 1 - y**2
    truth = s * np.linalg.solve((np.eye(60) - s[:, None] * weights).T, np.asarray(y))
    return (lambda y, p: jnp.sum(y**2) / 2), (lambda y, p: deq_cell(y, weights, p)), jnp.zeros(60), push, truth


def scattering():
    """The mean of Chandrasekhar's H at c = 0.9."""
    return (lambda x, c: jnp.mean(x)), h_map, jnp.ones(50), jnp.asarray(0.9), h_mean_slope(0.9)


def oscillators():
    """Coupled Kepler equations, gradient by all eccentricities from the dense formula."""
    mean, e = jnp.linspace(0.2, 2.0, 20), jnp.linspace(0.1, 0.6, 20)

    def f(x, e):
        return mean + e * jnp.sin(x) + 0.2 * jnp.roll(x, 1)

    x = mean
    for _ in range(400):
        x = f(x, e)
    jacobian = jax.jacobian(f)(x, e)
    adjoint = np.linalg.solve((np.eye(20) - jacobian).T, np.cos(x))
    return (lambda x, e: jnp.sum(jnp.sin(x))), f, mean, e, np.sin(x) * adjoint


@pytest.mark.parametrize("family", [deq, scattering, oscillators])
def test_the_estimate_is_the_error_and_the_correction_removes_it(family):
    loss, f, start, theta, truth = family()
    _, gradient, report = sv.implicit_value_and_grad(loss, f, start, theta, gradient_rtol=1e-2, max_corrections=1)
    size = np.linalg.norm(truth)
    before, after = (float(jnp.linalg.norm(g - truth)) / size for g in (report.uncorrected, gradient))
    assert before > 1e-9, "nothing to estimate"
    assert 0.5 <= float(report.error) / size / before <= 2
    assert after <= before / 5
    assert int(report.corrections) == 1
    assert int(report.estimate_products) <= 10


def test_a_gradient_is_as_exact_as_was_asked_for():
    loss, f, start, theta, truth = oscillators()
    for rtol in (1e-2, 1e-5, 1e-9):
        _, gradient, report = sv.implicit_value_and_grad(loss, f, start, theta, gradient_rtol=rtol)
        assert np.linalg.norm(gradient - truth) <= rtol * np.linalg.norm(truth)
        assert float(report.check().relative_error) <= rtol


def test_near_a_fold_the_estimate_degrades_and_the_status_tells():
    """Bratu's equation, whose fold lies near 3.5065 on this grid."""

    def loss(u, p):
        return u[u.size // 2]

    def middle(p):
        choices = {"method": sv.Newton(), "rtol": 0.0, "atol": 1e-13}
        return sv.root(bratu_1d, jnp.zeros(15), p, **choices).value[7]

    slope, effectivity, reports = jax.jit(jax.grad(middle)), [], []
    for parameter in (2.0, 3.505):
        p = jnp.asarray(parameter)
        report = sv.implicit_value_and_grad(
            loss, bratu_1d, jnp.zeros(15), p, equation="root", method=sv.Newton(), gradient_rtol=0.5, max_corrections=1
        )[2]
        reports.append(report)
        effectivity.append(float(report.error / jnp.abs(report.uncorrected - slope(p))))
    assert abs(effectivity[0] - 1) < 0.05 and reports[0].status is sv.Status.CONVERGED
    assert effectivity[1] < 0.5 and reports[1].status is sv.Status.STAGNATED
    assert float(reports[1].relative_error) > 0.5


def test_the_preconditioner_of_the_method_serves_the_gradient():
    """A stiff equation, A u + u^3 = b, whose condition is 4e4: few products, with the gradient of a dense solve."""
    n = 400
    stiff = jnp.asarray((2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) * (n + 1) ** 2)
    inverse = jnp.linalg.inv(stiff)

    def residual(u, b):
        return stiff @ u + u**3 - b

    method = sv.NewtonKrylov(preconditioner=lambda v, u, b: inverse @ v)
    b = jnp.full(n, 20.0)
    _, gradient, report = sv.implicit_value_and_grad(
        lambda u, b: jnp.mean(u), residual, jnp.zeros(n), b, equation="root", method=method, gradient_rtol=1e-6
    )
    assert int(report.check().products) <= 30
    u = np.zeros(n)
    for _ in range(20):
        u = u - np.linalg.solve(stiff + 3 * np.diag(u**2), residual(u, b))
    exact = np.linalg.solve(np.asarray(stiff + 3 * np.diag(u**2)).T, np.full(n, 1 / n))
    np.testing.assert_allclose(gradient, exact, atol=1e-6 * np.abs(exact).max())


def test_a_failed_solve_has_no_gradient():
    value = sv.implicit_value_and_grad(lambda x, a: x, lambda x, a: x + 1.0 + a * x**2, 1.0, 1.0, max_steps=20)
    assert np.isnan(float(value[1]))
    assert not value[2].status.ok
    with pytest.raises(sv.SolverError):
        value[2].check()


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        ({"gradient_rtol": 0.0}, ValueError),
        ({"gradient_rtol": 2.0}, ValueError),
        ({"equation": "fold"}, ValueError),
        ({"max_corrections": 0}, ValueError),
    ],
)
def test_wrong_input_is_told(choices, error):
    with pytest.raises(error):
        sv.implicit_value_and_grad(lambda x, a: x, lambda x, a: a * jnp.cos(x), 1.0, 0.5, **choices)


def test_integers_are_no_unknowns():
    with pytest.raises(TypeError, match="floating"):
        sv.implicit_value_and_grad(lambda x, a: x, lambda x, a: x, jnp.array(1), 0.5)
