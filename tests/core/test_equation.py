"""The contract: an equation's own stepper is used where it has one."""

import jax.numpy as jnp
import numpy as np

import solvers as sv
from solvers.core.equation import make_stepper


class Turn:
    """Rotation by an angle per step, marched as a complex number; its matrix is computed once."""

    def __init__(self):
        self.made = 0

    def stepper(self, dt):
        self.made += 1
        factor = jnp.exp(1j * dt)

        class Stepper:
            def enter(self, state):
                return state[0] + 1j * state[1]

            def leave(self, carry):
                return jnp.stack([carry.real, carry.imag])

            def step(self, carry, inputs):
                return carry * factor

        return Stepper()


class Plain:
    def step(self, state, inputs, dt):
        return state + dt * inputs


def test_a_plain_equation_becomes_a_stepper():
    assert float(make_stepper(Plain(), jnp.asarray(0.5)).step(1.0, 4.0)) == 3.0


def test_a_stepper_marches_what_it_likes():
    """The observer and the result see the public state, whatever is marched."""
    run = sv.simulate(Turn(), jnp.array([1.0, 0.0]), steps=10, dt=0.1, observe=lambda s: s[1], adjoint=sv.StoreAll())
    np.testing.assert_allclose(run.observed, np.sin(0.1 * np.arange(1, 11)), atol=1e-14)
    np.testing.assert_allclose(run.final, [np.cos(1.0), np.sin(1.0)], atol=1e-14)
