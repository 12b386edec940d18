"""The plain iteration."""

from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array

from .iteration import Advance, Problem, check_damping, counted, no_failure


class Picard(eqx.Module):
    """The plain iteration x <- x + damping (f(x) - x); for roots x <- x - damping F(x).

    Converges where the map contracts, at the rate of its spectral radius; no memory, one evaluation per step. The
    damping does not enter the stop test.

    Args:
        damping: fraction of the step, in (0, 1].

    Raises:
        ValueError: if the damping is outside of (0, 1].

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> round(float(sv.fixed_point(jnp.cos, 1.0, method=sv.Picard()).value), 6)
        0.739085

    Reference:
        C. T. Kelley, Iterative Methods for Linear and Nonlinear Equations (1995), section 4.2.
    """

    damping: Any = 1.0

    unrolls: ClassVar[bool] = True

    def __check_init__(self):
        check_damping(self.damping)

    def start(self, x: Array, r: Array) -> tuple:
        """Nothing is kept."""
        return ()

    def step(self, problem: Problem, x: Array, r: Array, memory: tuple, tolerance: Array) -> Advance:
        """One evaluation."""
        x = x + self.damping * r
        return Advance(x, problem.residual(x), memory, counted(1), counted(0), no_failure())
