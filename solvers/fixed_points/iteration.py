"""The loop behind every method: apply its step until the residual is small, and tell how it ended."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.packing import norm2
from ..core.status import Status

RUNNING = -1

# A residual this many times the first one has diverged.
BLOW_UP = 1e10


class Advance(NamedTuple):
    """What one step of a method gives.

    Attributes:
        x: next iterate.
        r: residual there.
        memory: what the method keeps.
        evaluations: evaluations of the residual in this step.
        products: Jacobian products in this step.
        failure: 0, or the code of the status with which the method gives up; x and r are then the old ones.
    """

    x: Array
    r: Array
    memory: Any
    evaluations: Array
    products: Array
    failure: Array


class Method(Protocol):
    """A way to solve r(x) = 0, with r = f(x) - x for fixed points and r = -F(x) for roots.

    So that x + r is the plain iteration, and the matrix of a Newton step is A = -dr/dx.
    """

    def start(self, x: Array, r: Array) -> Any:
        """What the method keeps from step to step, at the first iterate."""
        ...

    def step(self, problem: "Problem", x: Array, r: Array, memory: Any, tolerance: Array) -> Advance:
        """The next iterate from x with residual r; `tolerance` is the one of the stop test."""
        ...


class Problem(NamedTuple):
    """A residual and what belongs to it, as functions of vectors, for one value of the parameters.

    Attributes:
        residual: x -> r(x).
        precondition: (v, x) -> approximation of A^-1 v, or None.
    """

    residual: Callable[[Array], Array]
    precondition: Callable[[Array, Array], Array] | None

    def apply_preconditioner(self, v: Array, x: Array) -> Array:
        """The approximation of A^-1 v, v itself without a preconditioner."""
        return v if self.precondition is None else self.precondition(v, x)


class Rules(NamedTuple):
    """When to stop.

    Attributes:
        atol: absolute tolerance.
        rtol: relative tolerance.
        relative_to_x: the relative tolerance refers to norm2(x), else to the first residual.
        max_steps: largest number of steps.
        patience: steps without a smaller residual after which the solve has stagnated.
        history: keep the residual of every iterate.
    """

    atol: Array
    rtol: Array
    relative_to_x: bool
    max_steps: int
    patience: int
    history: bool


class Iterate(NamedTuple):
    """The state of the loop. `best` and `best_residual` are the ones to return."""

    x: Array
    r: Array
    memory: Any
    residual: Array
    tolerance: Array
    first: Array
    best: Array
    best_residual: Array
    since_best: Array
    iterations: Array
    evaluations: Array
    products: Array
    code: Array
    history: Array | None


def begin(method: Any, problem: Problem, x: Array, rules: Rules) -> Iterate:
    """The state at the first iterate, judged: an exact start is done."""
    r = problem.residual(x)
    residual = norm2(lax.stop_gradient(r))
    zero = jnp.zeros((), jnp.int32)
    history = None
    if rules.history:
        history = jnp.full(rules.max_steps + 1, jnp.nan, residual.dtype).at[0].set(residual)
    state = Iterate(
        x, r, method.start(x, r), residual, residual, residual, x, residual, zero, zero, zero + 1, zero, zero, history
    )
    return _judge(state, zero, rules)


def advance(method: Any, problem: Problem, state: Iterate, rules: Rules) -> Iterate:
    """One step, judged."""
    new = method.step(problem, state.x, state.r, state.memory, state.tolerance)
    residual = norm2(lax.stop_gradient(new.r))
    iterations = state.iterations + 1
    history = state.history if state.history is None else state.history.at[iterations].set(residual)
    state = state._replace(
        x=new.x,
        r=new.r,
        memory=new.memory,
        residual=residual,
        iterations=iterations,
        evaluations=state.evaluations + new.evaluations,
        products=state.products + new.products,
        history=history,
    )
    return _judge(state, new.failure, rules)


def _judge(state: Iterate, failure: Array, rules: Rules) -> Iterate:
    scale = norm2(lax.stop_gradient(state.x)) if rules.relative_to_x else state.first
    tolerance = rules.atol + rules.rtol * scale
    converged = state.residual <= tolerance
    better = (state.residual < state.best_residual) | converged
    since = jnp.where(better | (state.iterations == 0), 0, state.since_best + 1)
    # A tolerance relative to x grows with it and would hide that.
    blown = state.residual > BLOW_UP * state.first
    finite = jnp.isfinite(state.residual) & jnp.all(jnp.isfinite(state.x))

    code = jnp.where(state.iterations >= rules.max_steps, int(Status.MAX_STEPS), RUNNING)
    code = jnp.where(since >= rules.patience, int(Status.STAGNATED), code)
    code = jnp.where(blown, int(Status.DIVERGED), code)
    code = jnp.where(failure > 0, failure, code)
    code = jnp.where(finite, code, int(Status.NONFINITE))
    code = jnp.where(converged & finite, int(Status.CONVERGED), code)
    return state._replace(
        tolerance=tolerance,
        best=jnp.where(better, state.x, state.best),
        best_residual=jnp.where(better, state.residual, state.best_residual),
        since_best=since.astype(jnp.int32),
        code=code.astype(jnp.int32),
    )


def check_damping(damping: Any) -> None:
    """ValueError unless a known damping factor lies in (0, 1]."""
    if isinstance(damping, int | float) and not (math.isfinite(damping) and 0 < damping <= 1):
        raise ValueError(
            f"`damping` is the fraction of the step that is taken and must lie in (0, 1], got {damping!r}; "
            "1 is the plain iteration."
        )


def no_failure() -> Array:
    """The code of a step that went well."""
    return jnp.zeros((), jnp.int32)


def counted(number: int) -> Array:
    """A number of evaluations or products."""
    return jnp.asarray(number, jnp.int32)


def run_scanned(step: Callable[[Iterate], Iterate], state: Iterate, steps: int) -> Iterate:
    """The loop as a scan of fixed length, which can be differentiated in reverse; done states pass through."""

    def body(state: Iterate, _: None) -> tuple[Iterate, None]:
        return lax.cond(state.code == RUNNING, step, lambda s: s, state), None

    return lax.scan(body, state, None, length=steps)[0]
