"""The doors of this package: `fixed_point` and `root`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.batch_loop import while_active
from ..core.checks import is_known, warn_of_truncation
from ..core.implicit_rule import Adjoint, guarded, implicit_solution, tangent_solve
from ..core.krylov import check_counts
from ..core.packing import Packing, hoist, norm2
from ..core.status import Status
from .anderson import Anderson
from .iteration import RUNNING, Iterate, Problem, Rules, advance, begin, run_scanned
from .newton_krylov import NewtonKrylov
from .solution import Solution, Stats
from .stability import spectral_radius

# Steps without a smaller residual after which a solve has stagnated.
PATIENCE = 100


def fixed_point(
    f: Callable,
    x0: Any,
    *args: Any,
    method: Any = Anderson(),
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    adjoint: Adjoint = Adjoint(),
    history: bool = False,
    stability: int = 10,
) -> Solution:
    """Solve x = f(x, *args) and differentiate the solution by the implicit function theorem."""
    choices = _Choices(max_steps, has_aux, history, stability, True)
    return _door(f, x0, args, method, rtol, atol, adjoint, choices)


def root(
    F: Callable,
    x0: Any,
    *args: Any,
    method: Any = NewtonKrylov(),
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    adjoint: Adjoint = Adjoint(),
    history: bool = False,
) -> Solution:
    """Solve F(x, *args) = 0 and differentiate the solution by the implicit function theorem."""
    choices = _Choices(max_steps, has_aux, history, 0, False)
    return _door(F, x0, args, method, rtol, atol, adjoint, choices)


def _door(
    function: Callable,
    x0: Any,
    args: tuple,
    method: Any,
    rtol: Any,
    atol: Any,
    adjoint: Adjoint,
    choices: "_Choices",
) -> Solution:
    if not callable(function):
        raise TypeError(f"The first argument must be a function, got {type(function).__name__}.")
    for name in ("start", "step"):
        if not hasattr(method, name):
            raise TypeError(f"`method` must be a method such as Anderson() or NewtonKrylov(), got {method!r}.")
    if adjoint.mode == "unroll" and not getattr(method, "unrolls", False):
        raise ValueError(
            f'mode="unroll" differentiates Picard, Anderson and Broyden steps, not {type(method).__name__}.'
        )
    check_counts(max_steps=choices.max_steps)
    x0, args = _arrays(x0, "x0"), _arrays(args, "args")
    leaves = [x for x in jax.tree.leaves(x0) if eqx.is_inexact_array(x)]
    if not leaves:
        kinds = sorted({str(getattr(x, "dtype", type(x).__name__)) for x in jax.tree.leaves(x0)})
        raise TypeError(
            f"`x0` holds no floating number to solve for, only {', '.join(kinds) or 'nothing'}: unknowns are real or "
            "complex. Convert it, for example with x0 * 1.0."
        )
    rtol, atol = _tolerances(rtol, atol, leaves, args)
    return _solve(function, x0, args, method, rtol, atol, adjoint, choices)


class _Choices(NamedTuple):
    max_steps: int
    has_aux: bool
    history: bool
    stability: int
    of_map: bool


def _arrays(tree: Any, name: str) -> Any:
    """Numbers become arrays, so that new values need no new trace; everything that is no number stays."""

    def convert(x: Any) -> Any:
        number = isinstance(x, int | float | complex) and not isinstance(x, bool)
        if isinstance(x, np.ndarray | np.generic):
            warn_of_truncation(x, name)
        return jnp.asarray(x) if number or isinstance(x, np.ndarray | np.generic) else x

    return jax.tree.map(convert, tree)


def _tolerances(rtol: Any, atol: Any, leaves: list, args: Any) -> tuple:
    """Checked where they are known, as arrays; None is the default of the precision."""
    dtypes = [x.dtype for x in leaves if not x.weak_type]
    if not dtypes:
        # Python numbers take the precision of what they meet.
        dtypes = [jnp.result_type(*leaves, *filter(eqx.is_inexact_array, jax.tree.leaves(args)))]
    eps = max(float(jnp.finfo(d).eps) for d in dtypes)
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is None or not is_known(value):
            continue
        if isinstance(value, bool) or not np.isscalar(value) and jnp.ndim(value) or not float(value) >= 0:
            raise ValueError(f"`{name}` must be a number that is not negative, got {value!r}.")
    if is_known(rtol) and rtol is not None:
        if 0 < float(rtol) < eps:
            raise ValueError(
                f"`rtol` = {float(rtol):.3g} is below the machine precision {eps:.3g} of the unknowns; no residual can "
                "be known to be so small. Take a larger one, or 0 and an `atol`."
            )
        if float(rtol) == 0 and atol is not None and is_known(atol) and float(atol) == 0:
            raise ValueError("`rtol` and `atol` are both zero: no residual would ever be small enough.")
    return tuple(None if t is None else jnp.asarray(t) for t in (rtol, atol))


@eqx.filter_jit
def _solve(
    function: Callable, x0: Any, args: tuple, method: Any, rtol: Any, atol: Any, adjoint: Adjoint, choices: _Choices
) -> Solution:
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
        x = guarded(x, info.code == int(Status.CONVERGED))
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
    """The user's function as a residual of vectors; lives only while `_solve` is traced."""

    def __init__(self, function: Callable, x0: Any, args: tuple, choices: _Choices):
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
        pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(out), strict=True)
        for (path, a), b in pairs:
            b = jnp.asarray(b)
            if a.shape != b.shape or a.dtype != b.dtype:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"{name}{where} must have shape and dtype of x0{where}, {a.dtype}{list(a.shape)}, got "
                    f"{b.dtype}{list(b.shape)}."
                )
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
        given = [(jnp.shape(o)) for o in jax.tree.leaves(out)]
        if given != [shape for shape, _ in packing.leaves]:
            raise ValueError(f"The preconditioner must return the shapes of x0, got {given}.")
        return packing.pack(out)

    return hoist(apply, start, start)


def _tolerance(given: Array | None, packing: Packing) -> Array:
    eps = packing.precision
    default = 1e-8 if eps < 1e-12 else 1e-5 if eps < 1e-6 else 4 * eps
    return jnp.asarray(default if given is None else lax.stop_gradient(given), packing.dtype)


def _ended(state: Iterate, choices: _Choices) -> tuple[Array, _Info]:
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


def _finish(equation: _Equation, x: Array, info: _Info, residual: Callable) -> Solution:
    """The solution in the user's structure, with its certificate of stability and the auxiliary output."""
    packing, choices = equation.packing, equation.choices
    converged = info.code == int(Status.CONVERGED)
    code, radius, spent = info.code, jnp.full((), jnp.nan, packing.dtype), 0
    if choices.stability and packing.size:
        _, product = jax.linearize(residual, lax.stop_gradient(x))
        spent = min(choices.stability, packing.size)
        radius, cautious = spectral_radius(lambda v: product(v) + v, packing.size, packing.dtype, spent)
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
