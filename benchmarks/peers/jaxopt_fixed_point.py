"""Run one case with JAXopt. See `equations.py` for the case and the answer.

Its error is the absolute 2-norm of the residual, so `tol` is the tolerance of the benchmark. It reports no status: an
error below `tol` is taken as its claim of success.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jaxopt
from equations import MOST, TOLERANCE, Case, answer, read_case
from jax_runs import Build, Solve, run


def fixed_point(solver: Any, tolerance: float, **options: Any) -> Build:
    """A solver of x = f(x)."""

    def build(function: Callable[..., Any]) -> Solve:
        made = solver(function, tol=tolerance, maxiter=MOST, **options)

        def solve(start: Any, *args: Any) -> tuple[Any, Any]:
            step = made.run(start, *args)
            return step.params, step.state.error <= tolerance

        return solve

    return build


def methods(case: Case) -> dict[str, Build]:
    """Methods of a benchmark, by name."""
    tolerance = TOLERANCE[case.bench]
    if case.bench == "B5":
        return {
            "Broyden": fixed_point(jaxopt.Broyden, tolerance),
            "Anderson of x + F(x)": lambda f: fixed_point(jaxopt.AndersonAcceleration, tolerance)(lambda x: x + f(x)),
        }
    found = {
        "FixedPointIteration": fixed_point(jaxopt.FixedPointIteration, tolerance),
        "Anderson": fixed_point(jaxopt.AndersonAcceleration, tolerance),
        "Anderson, ridge 1e-12": fixed_point(jaxopt.AndersonAcceleration, tolerance, ridge=1e-12),
    }
    if case.bench == "B2":
        found["Broyden"] = lambda f: fixed_point(jaxopt.Broyden, tolerance)(lambda x, *args: x - f(x, *args))
    return found


def main() -> None:
    """One case."""
    case = read_case()
    jax.config.update("jax_enable_x64", case.bench != "B3")
    rows = run(case, methods(case)) if case.bench != "B1" else []
    answer(rows, {"jaxopt": version("jaxopt"), "jax": jax.__version__})


if __name__ == "__main__":
    main()
