"""Run one case with Optimistix. See `equations.py` for the case and the answer.

It stops by the change of x and of the residual, element by element; its tolerances are set so that the residual at the
end meets the tolerance of the benchmark. Derivatives by its default adjoint, which solves a dense system, except where
that system would not fit.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import lineax as lx
import optimistix as optx
from equations import MOST, TOLERANCE, Case, answer, read_case
from jax_runs import Build, Solve, run


def solver(door: Any, method: Any, adjoint: Any = None, most: int = MOST) -> Build:
    """`optx.root_find` or `optx.fixed_point` with a method."""

    def build(function: Callable[..., Any]) -> Solve:
        def solve(start: Any, *args: Any) -> tuple[Any, Any]:
            chosen = optx.ImplicitAdjoint() if adjoint is None else adjoint
            found = door(lambda x, a: function(x, *a), method, start, args, max_steps=most, adjoint=chosen, throw=False)
            return found.value, found.result == optx.RESULTS.successful

        return solve

    return build


def minus_identity(build: Build) -> Build:
    """Solve f(x) - x = 0."""
    return lambda f: build(lambda x, *args: f(x, *args) - x)


def methods(case: Case) -> dict[str, Build]:
    """Methods of a benchmark, by name."""
    tolerance = TOLERANCE[case.bench]
    if case.bench == "B1":
        # Tighter products than these make each Newton step dearer; looser ones make it fail.
        krylov = lx.GMRES(rtol=1e-4, atol=1e-8, restart=100, stagnation_iters=100, max_steps=4000)
        newton = optx.Newton(rtol=1e-8, atol=1e-8, linear_solver=krylov)
        tight = lx.GMRES(rtol=1e-8, atol=1e-10, restart=100, stagnation_iters=100, max_steps=4000)
        return {"Newton(GMRES)": solver(optx.root_find, newton, optx.ImplicitAdjoint(tight), 50)}
    if case.bench == "B5":
        pair = {"rtol": tolerance, "atol": tolerance}
        found = {
            "Newton": optx.Newton(**pair),
            "Newton(SVD)": optx.Newton(**pair, linear_solver=lx.SVD()),
            "Dogleg": optx.Dogleg(**pair),
            "LevenbergMarquardt": optx.LevenbergMarquardt(**pair),
        }
        return {name: solver(optx.root_find, method) for name, method in found.items()}
    # An element-wise criterion: the 2-norm is at most sqrt(size) times as large.
    each = tolerance / case.size**0.5
    picard = solver(optx.fixed_point, optx.FixedPointIteration(rtol=each / 10, atol=each))
    if case.bench == "B3":
        return {"FixedPointIteration": picard}
    newton = minus_identity(solver(optx.root_find, optx.Newton(rtol=each / 10, atol=each), most=50))
    return {"FixedPointIteration": picard, "Newton": newton}


def main() -> None:
    """One case."""
    case = read_case()
    jax.config.update("jax_enable_x64", case.bench != "B3")
    versions = {name: version(name) for name in ("optimistix", "lineax", "jax")}
    answer(run(case, methods(case)), versions)


if __name__ == "__main__":
    main()
