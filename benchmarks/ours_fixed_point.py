"""Run one case with solvers. See `peers/equations.py` for the case and the answer."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import jax
import jax.numpy as jnp
from equations import MOST, TOLERANCE, Case, answer, block_inverse, read_case, symbol
from jax_runs import Build, Solve, run

import solvers as sv


def fixed_point(method: Any, tolerance: float, **more: Any) -> Build:
    """`sv.fixed_point` to an absolute tolerance."""

    def build(function: Callable[..., Any]) -> Solve:
        def solve(start: Any, *args: Any) -> tuple[Any, Any]:
            found = sv.fixed_point(
                function, start, *args, method=method, rtol=0.0, atol=tolerance, max_steps=MOST, **more
            )
            return found.value, (found.code == sv.Status.CONVERGED) | (found.code == sv.Status.UNSTABLE)

        return solve

    return build


def root(method: Any, rtol: float, atol: float, max_steps: int, adjoint: Any = None) -> Build:
    """`sv.root`."""
    chosen = sv.Adjoint() if adjoint is None else adjoint

    def build(function: Callable[..., Any]) -> Solve:
        def solve(start: Any, *args: Any) -> tuple[Any, Any]:
            found = sv.root(
                function, start, *args, method=method, rtol=rtol, atol=atol, max_steps=max_steps, adjoint=chosen
            )
            return found.value, found.code == sv.Status.CONVERGED

        return solve

    return build


def methods(case: Case) -> dict[str, Build]:
    """Methods of a benchmark, by name."""
    tolerance = TOLERANCE[case.bench]
    if case.bench == "B1":
        eigenvalues = symbol(case.size)

        def inverse(v: Any, x: Any, p: Any, disc: Any) -> Any:
            return block_inverse(jnp, v, jnp.mean(x[0]), jnp.mean(x[1]), p[0], p[2], eigenvalues)

        many = sv.Gmres(restart=100, max_steps=4000)
        return {
            "NewtonKrylov, FFT": root(sv.NewtonKrylov(preconditioner=inverse), tolerance, 0.0, 50),
            "NewtonKrylov": root(sv.NewtonKrylov(many), tolerance, 0.0, 50, sv.Adjoint(linear=many)),
        }
    if case.bench == "B5":
        choices = (sv.Newton(), sv.NewtonKrylov(), sv.Anderson(), sv.Broyden(), sv.PseudoTransient())
        return {type(method).__name__: root(method, 0.0, tolerance, MOST) for method in choices}
    found = {
        name: fixed_point(method, tolerance, stability=0)
        for name, method in {"Anderson": sv.Anderson(), "Picard": sv.Picard()}.items()
    }
    if case.bench == "B2":
        choices = {"Anderson, depth 1": sv.Anderson(depth=1), "NewtonKrylov": sv.NewtonKrylov()}
        found |= {name: fixed_point(method, tolerance, stability=0) for name, method in choices.items()}
        # Ten products more tell whether the map itself would leave the answer.
        found["Anderson, certified"] = fixed_point(sv.Anderson(), tolerance, stability=10)
    return found


def main() -> None:
    """One case."""
    case = read_case()
    jax.config.update("jax_enable_x64", case.bench != "B3")
    answer(run(case, methods(case)), {"solvers": sv.__version__, "jax": version("jax")})


if __name__ == "__main__":
    main()
