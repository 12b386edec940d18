"""Exponential time differencing Runge-Kutta methods for u_t = L u + N(u) with a diagonal L."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

# Inside of this radius the power series holds; outside the closed forms lose no more than a digit.
RADIUS = 2.0
# Terms of the power series: 2^22 22^2 / 25! is below the round-off of double precision; four more for derivatives.
TERMS = 26


class ExponentialEuler(eqx.Module):
    r"""Exponential Euler steps u_new = e^z u + h phi_1(z) N(u), z = h L: first order, exact for constant N.

    Args:
        linear: L, as in `ETDRK2`.
        dt: h.

    Example:
        >>> import jax.numpy as jnp
        >>> ExponentialEuler(jnp.array([-2.0]), 0.1).step(jnp.array([1.0]), lambda u: jnp.array([2.0])).tolist()
        [1.0]
    """

    decay: Any
    first: Any

    def __init__(self, linear: Any, dt: Any):
        z = _times(linear, dt)
        self.decay = jax.tree.map(jnp.exp, z)
        self.first = _scaled(phi_1, z, dt)

    def step(self, state: Any, nonlinear: Callable[[Any], Any]) -> Any:
        """The state one step later; `nonlinear` is N, state -> pytree like the state."""
        return _combined((self.decay, state), (self.first, nonlinear(state)))


class ETDRK2(eqx.Module):
    r"""Second-order exponential Runge-Kutta steps for u_t = L u + N(u), exact for N = 0.

        a     = e^z u + h phi_1(z) N(u)
        u_new = a + h phi_2(z) (N(a) - N(u)),    z = h L

    Two evaluations of N per step. The linear part restricts no step; N does, like any explicit term.

    Args:
        linear: L, the factors of the modes: an array that broadcasts against the state, or a pytree of such with the
            structure of the state. Real for even, complex for odd derivatives.
        dt: h.

    Example:
        >>> import jax.numpy as jnp
        >>> stepper = ETDRK2(jnp.array([-2.0, -100.0]), 0.1)
        >>> stepper.step(jnp.array([1.0, 1.0]), lambda u: jnp.array([2.0, 0.0])).round(6).tolist()
        [1.0, 4.5e-05]

    Reference:
        Cox and Matthews, Journal of Computational Physics 176 (2002), 430, equation 22.
    """

    decay: Any
    first: Any
    second: Any

    def __init__(self, linear: Any, dt: Any):
        z = _times(linear, dt)
        self.decay = jax.tree.map(jnp.exp, z)
        self.first = _scaled(phi_1, z, dt)
        self.second = _scaled(phi_2, z, dt)

    def step(self, state: Any, nonlinear: Callable[[Any], Any]) -> Any:
        """The state one step later; `nonlinear` is N, state -> pytree like the state."""
        n_u = nonlinear(state)
        a = _combined((self.decay, state), (self.first, n_u))
        return _combined((None, a), (self.second, jax.tree.map(jnp.subtract, nonlinear(a), n_u)))


class ETDRK4(eqx.Module):
    r"""Fourth-order exponential Runge-Kutta steps for u_t = L u + N(u), exact for N = 0.

        a     = e^(z/2) u + (h/2) phi_1(z/2) N(u)
        b     = e^(z/2) u + (h/2) phi_1(z/2) N(a)
        c     = e^(z/2) a + (h/2) phi_1(z/2) (2 N(b) - N(u))
        u_new = e^z u + h (f_1(z) N(u) + 2 f_2(z) (N(a) + N(b)) + f_3(z) N(c)),    z = h L

    with f_1 = phi_1 - 3 phi_2 + 4 phi_3, f_2 = phi_2 - 2 phi_3, f_3 = 4 phi_3 - phi_2. Four evaluations of N per step.
    Where N does not fade on the stiff modes (smooth periodic fields do fade), the order falls, to 2 at worst.

    The weights cancel badly near z = 0 if computed as written. Kassam and Trefethen integrate around circles; here a
    power series holds for |z| < 2 and closed forms in 1/z outside, to a few units of round-off of the precision at
    hand, differentiable to all orders, also at z = 0.

    Args:
        linear: L, as in `ETDRK2`.
        dt: h.

    Example:
        >>> import jax.numpy as jnp
        >>> stepper = ETDRK4(jnp.array([-2.0, 0.0]), 0.1)
        >>> stepper.step(jnp.array([1.0, 1.0]), lambda u: jnp.array([2.0, 3.0])).round(6).tolist()
        [1.0, 1.3]

    Reference:
        Cox and Matthews, Journal of Computational Physics 176 (2002), 430, equations 26 to 29; Kassam and Trefethen,
        SIAM Journal on Scientific Computing 26 (2005), 1214; Hochbruck and Ostermann, SIAM Journal on Numerical
        Analysis 43 (2005), 1069 (where the order falls).
    """

    decay: Any
    half_decay: Any
    half: Any
    start: Any
    middle: Any
    end: Any

    def __init__(self, linear: Any, dt: Any):
        z = _times(linear, dt)
        half = jax.tree.map(lambda z: z / 2, z)
        self.decay = jax.tree.map(jnp.exp, z)
        self.half_decay = jax.tree.map(jnp.exp, half)
        self.half = _scaled(lambda z: phi_1(z) / 2, half, dt)
        self.start = _scaled(weight_start, z, dt)
        self.middle = _scaled(lambda z: 2 * weight_middle(z), z, dt)
        self.end = _scaled(weight_end, z, dt)

    def step(self, state: Any, nonlinear: Callable[[Any], Any], last: Callable[[Any], Any] | None = None) -> Any:
        """The state one step later; `nonlinear` is N, state -> pytree like the state, `last` that of the last stage.

        The last stage enters the result alone, so that a reverse sweep may compute it again and need not keep it.
        """
        n_u = nonlinear(state)
        a = _combined((self.half_decay, state), (self.half, n_u))
        n_a = nonlinear(a)
        b = _combined((self.half_decay, state), (self.half, n_a))
        n_b = nonlinear(b)
        c = _combined((self.half_decay, a), (self.half, jax.tree.map(lambda b, u: 2 * b - u, n_b, n_u)))
        n_c, n_ab = (last or nonlinear)(c), jax.tree.map(jnp.add, n_a, n_b)
        return _combined((self.decay, state), (self.start, n_u), (self.middle, n_ab), (self.end, n_c))


STEPPERS = {"etdrk2": ETDRK2, "etdrk4": ETDRK4}


def phi_1(z: Any) -> Array:
    """(e^z - 1) / z, and 1 at z = 0, for real or complex z, to round-off, with all derivatives."""
    return _entire(_series(lambda j: (j + 2) * (j + 3)), ((-1.0, 1.0),), jnp.asarray(z))


def phi_2(z: Any) -> Array:
    """(e^z - 1 - z) / z^2, and 1/2 at z = 0."""
    return _entire(_series(lambda j: j + 3), ((-1.0, 0.0), (-1.0, 1.0)), jnp.asarray(z))


def phi_3(z: Any) -> Array:
    """(e^z - 1 - z - z^2 / 2) / z^3, and 1/6 at z = 0."""
    return _entire(_series(lambda j: 1), ((-0.5, 0.0), (-1.0, 0.0), (-1.0, 1.0)), jnp.asarray(z))


def weight_start(z: Any) -> Array:
    """f_1 = phi_1 - 3 phi_2 + 4 phi_3, the weight of the first stage of `ETDRK4`."""
    return _entire(_series(lambda j: (j + 1) ** 2), ((0.0, 1.0), (-1.0, -3.0), (-4.0, 4.0)), jnp.asarray(z))


def weight_middle(z: Any) -> Array:
    """f_2 = phi_2 - 2 phi_3, half the weight of the middle stages."""
    return _entire(_series(lambda j: j + 1), ((0.0, 0.0), (1.0, 1.0), (2.0, -2.0)), jnp.asarray(z))


def weight_end(z: Any) -> Array:
    """f_3 = 4 phi_3 - phi_2, the weight of the last stage."""
    return _entire(_series(lambda j: 1 - j), ((-1.0, 0.0), (-3.0, -1.0), (-4.0, 4.0)), jnp.asarray(z))


def _series(numerator: Callable[[int], int]) -> tuple[float, ...]:
    """Coefficients numerator(j) / (j + 3)! of a power series."""
    return tuple(numerator(j) / math.factorial(j + 3) for j in range(TERMS))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _entire(series: tuple[float, ...], tail: tuple[tuple[float, float], ...], z: Array) -> Array:
    """sum_j series_j z^j near 0, and the same function as sum_m (a_m + b_m e^z) / z^m outside, m = 1, 2, ...

    In powers of 1/z nothing overflows. Functions of this form are closed under differentiation, so that derivatives of
    all orders are as accurate as values, and none goes through the power series.
    """
    near = jnp.abs(z) < RADIUS
    inside, outside = jnp.where(near, z, 0), jnp.where(near, RADIUS, z)
    power = jnp.zeros_like(z)
    for coefficient in reversed(series):
        power = power * inside + coefficient
    inverse, growth = 1 / outside, jnp.exp(outside)
    closed = jnp.zeros_like(z)
    for a, b in reversed(tail):
        closed = (closed + (a + b * growth)) * inverse
    return jnp.where(near, power, closed)


@_entire.defjvp
def _entire_jvp(series: tuple, tail: tuple, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dot,) = primals, tangents
    longer = (*tail, (0.0, 0.0))
    before = ((0.0, 0.0), *tail)
    slopes = tuple((-m * a0, b - m * b0) for m, ((_, b), (a0, b0)) in enumerate(zip(longer, before, strict=True)))
    powers = tuple(j * coefficient for j, coefficient in enumerate(series) if j)
    return _entire(series, tail, z), _entire(powers, slopes, z) * dot


def _times(linear: Any, dt: Any) -> Any:
    return jax.tree.map(lambda factor: factor * _real(dt, factor), linear)


def _real(dt: Any, like: Array) -> Array:
    """dt in the precision of an array, so that it promotes nothing."""
    return jnp.asarray(dt, jnp.finfo(like.dtype).dtype)


def _scaled(function: Callable[[Array], Array], z: Any, dt: Any) -> Any:
    return jax.tree.map(lambda z: function(z) * _real(dt, z), z)


def _combined(*terms: tuple[Any, Any]) -> Any:
    """Sum of factor * state over the terms; a factor None is 1."""
    total = None
    for factor, state in terms:
        term = state if factor is None else jax.tree.map(jnp.multiply, factor, state)
        total = term if total is None else jax.tree.map(jnp.add, total, term)
    return total
