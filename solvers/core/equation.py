"""What the loop marches: the contract of an equation and of its stepper."""

from typing import Any, Protocol

import equinox as eqx
import jax
from jaxtyping import Array


class Equation(Protocol):
    """What `simulate` marches: anything with a `step`.

    An equation may offer more, and the loop uses it: `check(state, steps, dt, inputs)` raises for bad input;
    `stepper(dt)` returns a `Stepper` that holds what does not change from step to step.
    """

    def step(self, state: Any, inputs: Any, dt: Any) -> Any:
        """Advance the state from t to t + dt; `inputs` act at t."""
        ...


class Stepper(Protocol):
    """An equation made ready for one run: arrays that are the same at every step are computed.

    It may march something else than the public state: `enter(state)` and `leave(carry)` convert. It may say by `unroll`
    how many steps a turn of the loop holds: 2 by default; 1 compiles faster, for steps that are long. A hand-derived
    adjoint consists of `taped_step`, `pull_start`, `pull_observed`, `spreads`, `pull_spread`, `pull_step` and
    `pull_finish` (see `pde.wave_stepper` for the one that we ship).
    """

    def step(self, state: Any, inputs: Any) -> Any:
        """Advance the state by one step."""
        ...


class _Plain(eqx.Module):
    """An equation without a stepper of its own."""

    equation: Any
    dt: Array

    def step(self, state: Any, inputs: Any) -> Any:
        return self.equation.step(state, inputs, self.dt)


def make_stepper(equation: Any, dt: Array) -> Any:
    """The stepper of an equation, its own or the plain one."""
    return equation.stepper(dt) if hasattr(equation, "stepper") else _Plain(equation, dt)


class _Opaque:
    """An object that Python cannot hash, compared by identity; a cache tells its contents by their fingerprint."""

    def __init__(self, equation: Any):
        self.equation = equation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.equation, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opaque) and self.equation is other.equation

    def __hash__(self) -> int:
        return id(self.equation)


def hashable(equation: Any) -> Any:
    """The equation, for a compiled function that takes what is no pytree as it stands: behind a hash if it has none.

    Data classes with `eq` have none, nor do frozen ones that hold an array.
    """
    if jax.tree_util.all_leaves([equation]):
        try:
            hash(equation)
        except TypeError:
            return _Opaque(equation)
    return equation
