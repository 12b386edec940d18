"""Weights of exponential Runge-Kutta methods to round-off, and the orders of the methods."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.pde.etdrk import ETDRK2, ETDRK4, phi_1, phi_2, phi_3, weight_end, weight_middle, weight_start

# Each weight as a combination of phi_1, phi_2, phi_3.
WEIGHTS = {
    phi_1: (1, 0, 0),
    phi_2: (0, 1, 0),
    phi_3: (0, 0, 1),
    weight_start: (1, -3, 4),
    weight_middle: (0, 1, -2),
    weight_end: (0, -1, 4),
}
MIX = jnp.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.2], [0.3, 0.0, 1.0]])
DIRECTIONS = {"negative": -1.0, "positive": 1.0, "imaginary": 1j, "oblique": (-1 + 1j) / np.sqrt(2)}


def product(a, b):
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def quotient(a, b):
    size = b[0] ** 2 + b[1] ** 2
    over = product(a, (b[0], -b[1]))
    return over[0] / size, over[1] / size


def exact_phis(z):
    """phi_1, phi_2, phi_3 as pairs (real, imaginary) of 100 digits: the definitions lose 36 of them at most."""
    z = Decimal(float(z.real)), Decimal(float(z.imag))
    # exp by its series at z / 2^24, then 24 squarings.
    small = z[0] / 2**24, z[1] / 2**24
    term, e = (Decimal(1), Decimal(0)), (Decimal(0), Decimal(0))
    for n in range(1, 40):
        e = e[0] + term[0], e[1] + term[1]
        term = product(term, (small[0] / n, small[1] / n))
    for _ in range(24):
        e = product(e, e)
    found, phi = [], e
    for inverse_factorial in (1, 1, Decimal("0.5")):
        phi = quotient((phi[0] - inverse_factorial, phi[1]), z)
        found.append(phi)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_weights_are_right_to_round_off(direction, dtype):
    size = np.concatenate([np.logspace(-12, 4, 33), np.linspace(0.5, 6.0, 40)])
    size = size[size < 60] if direction == "positive" else size
    toward = DIRECTIONS[direction]
    z = (size * toward).astype(np.result_type(dtype, np.complex64) if np.iscomplexobj(toward) else dtype)
    with localcontext() as context:
        context.prec = 100
        phis = [exact_phis(one) for one in z]
        for weight, factors in WEIGHTS.items():
            ours = np.asarray(weight(jnp.asarray(z)))
            assert ours.dtype == z.dtype
            slopes = jax.vmap(jax.grad(weight, holomorphic=np.iscomplexobj(z)))(jnp.asarray(z))
            for one, value, slope, phi in zip(z, ours, np.asarray(slopes), phis, strict=True):
                truth = [sum(f * p[part] for f, p in zip(factors, phi, strict=True)) for part in (0, 1)]
                error = abs(complex(Decimal(float(value.real)) - truth[0], Decimal(float(value.imag)) - truth[1]))
                # weight_start has a zero at -2.69, weight_end at 2.69; a rounding of z shows there.
                scale = abs(complex(*map(float, truth))) + abs(one * slope)
                assert error < 8 * np.finfo(dtype).eps * scale, (weight.__name__, one)


# sum_j numerator(j) z^j / (j + 3)!: value, first and second derivative at zero.
AT_ZERO = {
    phi_1: (1, 1 / 2, 1 / 3),
    phi_2: (1 / 2, 1 / 6, 1 / 12),
    phi_3: (1 / 6, 1 / 24, 1 / 60),
    weight_start: (1 / 6, 1 / 6, 3 / 20),
    weight_middle: (1 / 6, 1 / 12, 1 / 20),
    weight_end: (1 / 6, 0, -1 / 60),
}


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda weight: weight.__name__)
def test_derivatives_of_weights(weight):
    slope, second = jax.vmap(jax.grad(weight)), jax.vmap(jax.jacfwd(jax.jacrev(weight)))
    zero = jnp.zeros(1)
    found = [float(f(zero)[0]) for f in (weight, slope, second)]
    np.testing.assert_allclose(found, AT_ZERO[weight], rtol=4 * np.finfo(float).eps, atol=1e-17)
    # Central differences with h = 1e-4: h^2 / 6 of the next derivative, and round-off / h.
    z, h = jnp.array([-1e-9, -0.5, -1.999, -2.001, -7.0, -300.0, 3.0]), 1e-4
    np.testing.assert_allclose(slope(z), (weight(z + h) - weight(z - h)) / (2 * h), rtol=2e-8, atol=1e-10)
    np.testing.assert_allclose(second(z), (slope(z + h) - slope(z - h)) / (2 * h), rtol=2e-8, atol=1e-10)
    far = jnp.array([-1e4, -1e30, -1e300])
    assert np.all(np.isfinite(slope(far))) and np.all(np.isfinite(second(far)))
    complex_slope = jax.vmap(jax.grad(weight, holomorphic=True))(jnp.zeros(1, complex))
    np.testing.assert_allclose(complex_slope, AT_ZERO[weight][1], atol=1e-15)


@pytest.mark.parametrize(("method", "order"), [(ETDRK2, 2), (ETDRK4, 4)])
def test_order_in_time(method, order):
    """u_t = -r u + u^2 has u = r / (1 + (r / u_0 - 1) e^(r t))."""
    rate = jnp.array([0.5, 3.0, 12.0 + 4j])
    start = jnp.array([0.2, 1.0, 0.5], complex)

    def error(steps):
        stepper, u = method(-rate, 1.0 / steps), start
        for _ in range(steps):
            u = stepper.step(u, lambda u: u**2)
        return float(jnp.max(jnp.abs(u - rate / (1 + (rate / start - 1) * jnp.exp(rate)))))

    sv.check_order(error, (20, 40, 80), expected=order).check()


@pytest.mark.parametrize("method", [ETDRK2, ETDRK4])
def test_constant_terms_are_integrated_exactly(method):
    linear, force, dt = jnp.array([-1e5, -3.0, 0.0, 2.0]), jnp.array([1.0, -2.0, 0.7, 0.1]), 0.4
    step = method(linear, dt).step(jnp.ones(4), lambda u: force)
    exact = (
        jnp.exp(linear * dt) + jnp.where(linear == 0, dt, jnp.expm1(linear * dt) / jnp.where(linear, linear, 1)) * force
    )
    np.testing.assert_allclose(step, exact, rtol=16 * np.finfo(float).eps)


@pytest.mark.parametrize("method", [ETDRK2, ETDRK4])
def test_a_state_may_be_a_pytree(method):
    linear, start = jnp.array([-1.0, -20.0]), jnp.array([0.3, 0.9])
    together = method(linear, 0.1).step(start, lambda u: u * u[::-1])
    apart = method({"a": linear[0], "b": linear[1]}, 0.1).step(
        {"a": start[0], "b": start[1]}, lambda u: {"a": u["a"] * u["b"], "b": u["a"] * u["b"]}
    )
    np.testing.assert_array_equal(together, jnp.stack([apart["a"], apart["b"]]))


@pytest.mark.parametrize("method", [ETDRK2, ETDRK4])
def test_single_precision_stays_single(method):
    stepper = method(jnp.array([-1.0, 0.0], jnp.float32), jnp.asarray(0.1))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(stepper))
    assert stepper.step(jnp.ones(2, jnp.float32), jnp.sin).dtype == jnp.float32


@pytest.mark.parametrize("method", [ETDRK2, pytest.param(ETDRK4, marks=pytest.mark.slow)])
def test_gradients_through_steps(method):
    def value(p):
        stepper = method(p["linear"] * jnp.array([0.0, 1.0, 40.0]), p["dt"])
        # A product with a matrix in N, as transforms are: else the compiler writes all stages out into one formula.
        u, _ = jax.lax.scan(lambda u, _: (stepper.step(u, lambda u: -(u**2) * (MIX @ u)), None), p["start"], length=3)
        return jnp.sum(u**2)

    point = {"linear": jnp.asarray(-1.0), "dt": jnp.asarray(0.2), "start": jnp.array([0.4, 1.0, -0.7])}
    sv.check_gradient(value, point, hessian=method is ETDRK4).check()
    sv.check_adjoint(value, point).check()
