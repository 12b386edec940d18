"""Third-order Runge-Kutta steps with two registers and an exact linear part."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .etdrk import phi_1

# Williamson's stages: what stays of the register, what goes into the state, and how far a stage advances the time.
KEPT = (0.0, -5 / 9, -153 / 128)
TAKEN = (1 / 3, 15 / 16, 8 / 15)
ADVANCE = (1 / 3, 5 / 12, 1 / 4)


class LowStorageRK3(eqx.Module):
    r"""Steps for u_t = L u + N(u) + F with diagonal L and constant F, exact for N = 0.

    With s = 0 at first, for the stages i = 1, 2, 3 of lengths h_i = h / 3, 5 h / 12, h / 4

        s <- a_i s + h N(u)
        u <- exp(h_i L) (u + b_i s) + h_i phi_1(h_i L) F
        s <- exp(h_i L) s

    which is the Runge-Kutta method in the variable exp(-t L) (u - u_F), u_F = -F / L: an integrating factor around the
    fixed point of the linear part, so that this point stays where it is. Two registers, three evaluations of N; the
    times of the stages increase, so that no factor grows for decaying modes. Stable for |h lambda| <= 3^(1/2) on the
    imaginary axis.

    Args:
        linear: L, the factors of the modes: a pytree with the structure of the state, whose leaves broadcast.
        dt: h.

    Example:
        >>> import jax.numpy as jnp
        >>> stepper = LowStorageRK3(jnp.array([-2.0, -100.0]), jnp.asarray(0.1))
        >>> stepper.step(jnp.array([0.5, 1.0]), lambda u: 0 * u, jnp.array([1.0, 0.0])).round(6).tolist()
        [0.5, 4.5e-05]

    Reference:
        J. H. Williamson, Journal of Computational Physics 35 (1980), 48 (the coefficients); R. S. Rogallo, NASA TM
        81315 (1981), section 3 (the integrating factor).
    """

    decay: tuple[Any, ...]
    gain: tuple[Any, ...]
    dt: Array

    def __init__(self, linear: Any, dt: Array):
        z = [jax.tree.map(lambda factor, c=c: (c * dt) * factor, linear) for c in ADVANCE]
        self.decay = tuple(jax.tree.map(jnp.exp, part) for part in z)
        self.gain = tuple(
            jax.tree.map(lambda x, c=c: (c * dt) * phi_1(x), part) for c, part in zip(ADVANCE, z, strict=True)
        )
        self.dt = dt

    def step(self, state: Any, nonlinear: Callable[[Any], Any], force: Any = None) -> Any:
        """The state one step later; `nonlinear` is N, state -> pytree like the state, `force` is F."""
        register = None
        for kept, taken, decay, gain in zip(KEPT, TAKEN, self.decay, self.gain, strict=True):
            rate = jax.tree.map(lambda n: self.dt * n, nonlinear(state))
            register = rate if register is None else jax.tree.map(lambda s, n, a=kept: a * s + n, register, rate)
            state = jax.tree.map(lambda e, u, s, b=taken: e * (u + b * s), decay, state, register)
            if force is not None:
                state = jax.tree.map(lambda u, g, f: u + g * f, state, gain, force)
            register = jax.tree.map(jnp.multiply, decay, register)
        return state
