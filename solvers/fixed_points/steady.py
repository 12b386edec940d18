"""Steady states of time steppers."""

from collections.abc import Callable
from typing import Any

from ..core.implicit_rule import Adjoint
from .doors import fixed_point
from .handover import Handover
from .newton_krylov import NewtonKrylov
from .solution import Solution


def steady_state(
    step: Callable,
    x0: Any,
    *args: Any,
    preconditioner: Callable | None = None,
    method: Any = None,
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    adjoint: Adjoint = Adjoint(),
    history: bool = False,
    stability: int = 10,
) -> Solution:
    """Find the state that a time step leaves as it is, x = step(x, *args), and differentiate it.

    Any time stepper will do: it stays a black box, its steady state is a fixed point of the step and so has no error
    in time. Anderson acceleration makes the first steps; Newton-Krylov finishes from the best of them. Both forget the
    way through time: a state that was never stable can be found, which the status UNSTABLE tells. Cost: evaluations
    and Jacobian products of the step, each about one step of the simulation. The derivative solves one linear
    equation with the transposed Jacobian; it costs no memory per step. From a start that a simulation leaves ever
    faster, the way is likely to lead back to the unstable state that it comes from: simulate a little first.

    The residual of a step of length dt is about dt times the rate of change, so a small dt makes a small residual out
    of a state that still moves. A long step is better in every way, as far as the stepper is accurate enough to be
    meaningful: implicit in its stiff linear part, A = 1 - dstep/dx has then few small eigenvalues. What is left of
    the stiffness is the task of the preconditioner.

    With r = step(x) - x and A = -dr/dx, a preconditioner approximates A^-1. For an explicit step x + dt F(x) that is
    -(dt F')^-1; for a semi-implicit one, (1 - dt L)^-1 (x + dt N(x)), it is -(dt (L + N'))^-1 (1 - dt L), and with N'
    taken constant in space both are diagonal after a Fourier transform. It acts from the right, so that it cannot
    change the solution, and transposed in the derivative.

    Args:
        step: function (x, *args) -> next x, a pytree of the same structure, shapes and dtypes; (next x, aux) with
            `has_aux`.
        x0: initial guess; need not be near.
        *args: what the step depends on; differentiable.
        preconditioner: function (v, x, *args) -> approximation of A^-1 v, linear in v.
        method: method in place of `Handover(Anderson(), NewtonKrylov(preconditioner=preconditioner))`.
        rtol: relative tolerance, norm2(step(x) - x) <= atol + rtol * norm2(x); default 1e-8 in float64, 1e-5 in
            float32.
        atol: absolute tolerance, with the same default.
        max_steps: most steps of the method.
        has_aux: the step returns a second, auxiliary output.
        adjoint: how the derivative is computed.
        history: keep the residual of every iterate in `stats.history`.
        stability: number of Jacobian products spent on the spectral radius of the step, 0 for none.

    Returns:
        `Solution(value, aux, status, stats)`. UNSTABLE: a steady state that a simulation would leave.

    Raises:
        ValueError: for a step of another structure, shape or dtype, or a preconditioner beside a method.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> logistic = lambda x, rate: x + 0.1 * rate * x * (1 - x / 3.0)
        >>> found = steady_state(logistic, jnp.array([2.0]), 2.0)
        >>> round(float(found.value[0]), 8), found.status.name
        (3.0, 'CONVERGED')

    Reference:
        L. S. Tuckerman, D. Barkley, Bifurcation analysis for timesteppers, in Numerical Methods for Bifurcation
        Problems and Large-Scale Dynamical Systems (2000) 453; C. T. Kelley, I. G. Kevrekidis, L. Qiao, Newton-Krylov
        solvers for time-steppers, arXiv math/0404374.
    """
    if method is not None and preconditioner is not None:
        raise ValueError(
            "Give `preconditioner` to the method, as in NewtonKrylov(preconditioner=...), where you choose a `method`."
        )
    chosen = Handover(then=NewtonKrylov(preconditioner=preconditioner)) if method is None else method
    return fixed_point(
        step,
        x0,
        *args,
        method=chosen,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        has_aux=has_aux,
        adjoint=adjoint,
        history=history,
        stability=stability,
    )
