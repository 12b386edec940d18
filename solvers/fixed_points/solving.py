"""A solve as one compiled function: equation, loop, implicit rule, certificate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.batch_loop import while_active
from ..core.guard import guarded_by
from ..core.implicit_rule import Adjoint, default_tolerance, implicit_solution, tangent_solve
from ..core.packing import Packing, hoist, norm2
from ..core.status import Status
from .iteration import RUNNING, Iterate, Problem, Rules, advance, begin, run_scanned
from .solution import Solution, Stats
from .stability import spectral_radius

# Steps without a smaller residual after which a solve has stagnated.
PATIENCE = 100


class Choices(NamedTuple):
    """What is static in a solve.

    Attributes:
        max_steps: largest number of steps.
        has_aux: the function returns (value, aux).
        history: keep the residual of every iterate.
        stability: products spent on the spectral radius.
        of_map: x = f(x), else F(x) = 0.
        seen: fingerprint of what the functions capture.
    """

    max_steps: int
    has_aux: bool
    history: bool
    stability: int
    of_map: bool
    seen: Any


@eqx.filter_jit
def solve_compiled(
    function: Callable, x0: Any, args: tuple, method: Any, rtol: Any, atol: Any, adjoint: Adjoint, choices: Choices
) -> Solution:
    """The solve behind both doors; traced once per functions, shapes, dtypes and choices."""
    equation = _Equation(function, x0, args, choices)
    packing = equation.packing
    start = lax.stop_gradient(packing.pack(equation.moving))
    given = adjoint.preconditioner if adjoint.preconditioner is not None else getattr(method, "preconditioner", None)
    pure, captured = hoist(equation.residual, start)
    forward = _hoisted_preconditioner(equation, getattr(method, "preconditioner", None), start)
    backward = _hoisted_preconditioner(equation, given, start)
    tolerances = tuple(_tolerance(t, packing) for t in (rtol, atol))
    arrays, static = eqx.partition(method, eqx.is_array)
    params = (captured, forward[1], backward[1], tolerances, arrays)

    def of_params(params: tuple, x: Array) -> Array:
        return pure(params[0], x)

    def parts(params: tuple) -> tuple[Any, Problem, Rules]:
        precondition = None if forward[0] is None else (lambda v, x: forward[0](params[1], v, x))
        problem = Problem(lambda x: pure(params[0], x), precondition)
        rules = Rules(params[3][1], params[3][0], choices.of_map, choices.max_steps, PATIENCE, choices.history)
        return eqx.combine(params[4], static), problem, rules

    def one(params: tuple, state: Iterate) -> Iterate:
        method, problem, rules = parts(params)
        return advance(method, problem, state, rules)

    def solve(params: tuple, x: Array) -> tuple[Array, _Info]:
        method, problem, rules = parts(params)
        first = begin(method, problem, x, rules)
        return _ended(while_active(lambda s: s.code == RUNNING, one, params, first), choices)

    def tangent(matvec: Callable, dr: Array, params: tuple, x: Array, info: _Info) -> Array:
        precondition = None if backward[0] is None else (lambda v: backward[0](params[2], v, x))
        dx = tangent_solve(adjoint, matvec, dr, precondition, _match(info, packing))
        return dx * jnp.where(info.code == int(Status.CONVERGED), 1, jnp.nan).astype(dx.dtype)

    if adjoint.mode == "unroll":
        method, problem, rules = parts(params)
        final = run_scanned(lambda s: one(params, s), begin(method, problem, start, rules), choices.max_steps)
        x, info = _ended(final, choices)
        # The best iterate of a solve that failed may be the start, on which no parameter has a hold.
        floating = [p for p in jax.tree.leaves(params) if eqx.is_inexact_array(p)]
        x = guarded_by(x, info.code == int(Status.CONVERGED), floating)
    else:
        x, info = implicit_solution(of_params, params, start, solve, tangent)
    return _finish(equation, x, lax.stop_gradient(info), lambda x: pure(lax.stop_gradient(captured), x))


class _Info(NamedTuple):
    """What the loop leaves behind beside the solution."""

    code: Array
    residual: Array
    tolerance: Array
    scale: Array
    iterations: Array
    evaluations: Array
    products: Array
    history: Array | None


class _Equation:
    """The user's function as a residual of vectors; lives only while a solve is traced."""

    def __init__(self, function: Callable, x0: Any, args: tuple, choices: Choices):
        self.function, self.args, self.choices, self.x0 = function, args, choices, x0
        self.moving, self.still = eqx.partition(x0, eqx.is_inexact_array)
        if any(x.weak_type for x in jax.tree.leaves(self.moving)):
            out = self.wanted(jax.eval_shape(lambda m: self.output(m), self.moving))
            self.moving = jax.tree.map(_settled, self.moving, out)
        self.packing = Packing(self.moving)

    def output(self, moving: Any) -> Any:
        out = self.function(eqx.combine(moving, self.still), *self.args)
        if not self.choices.has_aux:
            return out
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(f"With has_aux=True the function must return (value, aux), got {type(out).__name__}.")
        return out[0]

    def wanted(self, out: Any) -> Any:
        """The leaves of the output that belong to unknowns; the structure is checked."""
        name = "f(x0, *args)" if self.choices.of_map else "F(x0, *args)"
        there, here = jax.tree.structure(out), jax.tree.structure(self.x0)
        if there != here:
            raise ValueError(f"{name} must have the structure of x0, {here}, got {there}.{self.hint(out)}")
        return jax.tree.map(lambda m, o: None if m is None else o, self.moving, out, is_leaf=lambda m: m is None)

    def hint(self, out: Any) -> str:
        pair = isinstance(out, tuple) and len(out) == 2 and not self.choices.has_aux
        return " If the second output is auxiliary, say has_aux=True." if pair else ""

    def residual(self, x: Array) -> Array:
        tree = self.packing.unpack(x)
        out = self.wanted(self.output(tree))
        name = "f(x0, *args)" if self.choices.of_map else "F(x0, *args)"
        self.packing.expect(out, name)
        value = self.packing.pack(out)
        return value - self.packing.pack(tree) if self.choices.of_map else -value


def _settled(x: Array, out: Any) -> Array:
    """A Python number takes the type of what the function makes of it."""
    return x.astype(out.dtype) if x.weak_type and jnp.issubdtype(out.dtype, jnp.inexact) else x


def _hoisted_preconditioner(equation: _Equation, function: Callable | None, start: Array) -> tuple:
    """(pure function of (captured, v, x), captured) of a user's preconditioner, in vectors."""
    if function is None:
        return None, []
    packing = equation.packing

    def apply(v: Array, x: Array) -> Array:
        v_tree, x_tree = (eqx.combine(packing.unpack(z), equation.still) for z in (v, x))
        out = equation.wanted(function(v_tree, x_tree, *equation.args))
        packing.expect(out, "The result of the preconditioner")
        return packing.pack(out)

    return hoist(apply, start, start)


def _tolerance(given: Array | None, packing: Packing) -> Array:
    default = default_tolerance(packing.precision)
    return jnp.asarray(default if given is None else lax.stop_gradient(given), packing.dtype)


def _ended(state: Iterate, choices: Choices) -> tuple[Array, _Info]:
    scale = norm2(lax.stop_gradient(state.best)) if choices.of_map else state.first
    return state.best, _Info(
        state.code,
        state.best_residual,
        state.tolerance,
        scale,
        state.iterations,
        state.evaluations,
        state.products,
        state.history,
    )


def _match(info: _Info, packing: Packing) -> Array:
    """Relative tolerance of the tangent equation: the relative residual, within a tenth of what was asked for."""
    scale = jnp.where(info.scale > 0, info.scale, 1)
    floor = jnp.maximum(0.1 * info.tolerance / scale, 8 * packing.precision)
    return jnp.clip(jnp.maximum(info.residual / scale, floor), None, 0.1)


NO_PRODUCTS = (
    "The function has no Jacobian products (forward mode), which the estimate of the spectral radius takes: give "
    "stability=0, and a method that needs none (Anderson, Picard, Broyden). JAX says: {}"
)


def _radius(residual: Callable, x: Array, packing: Packing, products: int) -> tuple[Array, Array]:
    """The estimates of the spectral radius at x, or advice where the function has no Jacobian products."""
    try:
        _, product = jax.linearize(residual, lax.stop_gradient(x))
        return spectral_radius(lambda v: product(v) + v, packing.size, packing.dtype, products)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(NO_PRODUCTS.format(error)) from error


def _finish(equation: _Equation, x: Array, info: _Info, residual: Callable) -> Solution:
    """The solution in the user's structure, with its certificate of stability and the auxiliary output."""
    packing, choices = equation.packing, equation.choices
    converged = info.code == int(Status.CONVERGED)
    code, radius, spent = info.code, jnp.full((), jnp.nan, packing.dtype), 0
    if choices.stability and packing.size:
        spent = min(choices.stability, packing.size)
        radius, cautious = _radius(residual, x, packing, spent)
        # The eigenvalue 1 itself, of a conserved quantity, must not be taken for more by round-off.
        unstable = converged & (cautious > 1 + packing.precision ** (1 / 3))
        code = jnp.where(unstable, int(Status.UNSTABLE), code)
        radius = jnp.where(converged, radius, jnp.nan)
    value, aux = eqx.combine(packing.unpack(x), equation.still), None
    if choices.has_aux:
        aux = equation.function(value, *equation.args)[1]
    stats = Stats(
        info.iterations,
        info.evaluations + int(choices.has_aux),
        info.products + spent,
        info.residual,
        info.tolerance,
        radius,
        info.history,
    )
    return Solution(value, aux, code, stats)
