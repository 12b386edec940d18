"""Run one case of `generate.py` with solvers. See `peers/generate_problem.py` for the case and the answer."""

import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import jax
from generate_problem import LARGEST, SMALLEST, Case, answer, read_case
from generate_runs import Build, Draw, run

import solvers as sv


def through(method_of: Callable[[int], Any], given_starts: bool) -> Build:
    """`sv.generate` with the method for a number of evaluations."""

    def build(score: Callable, count: int) -> Draw:
        noise, method = sv.VarianceExploding(SMALLEST, LARGEST), method_of(count)

        def draw(starts: Any, key: Any) -> Any:
            start = starts if given_starts else None
            return sv.generate(
                score, noise, key, shape=starts.shape, dtype=starts.dtype, start=start, method=method, denoise=False
            )

        return draw

    return build


def tolerance(count: int) -> float:
    """One that takes about as many evaluations of a scheme of order five."""
    return 1e-3 * (24 / count) ** 5


def methods(case: Case) -> dict[str, Build]:
    """Methods by name."""
    if case.kind == "flow":
        found = {
            "Heun": lambda n: sv.Heun(n // 2),
            "Heun, rho = inf": lambda n: sv.Heun(n // 2, rho=math.inf),
            "Ddim": lambda n: sv.Ddim(n),
            "DpmSolver": lambda n: sv.DpmSolver(n),
            "ProbabilityFlow": lambda n: sv.ProbabilityFlow(rtol=tolerance(n), atol=tolerance(n)),
        }
    else:
        found = {
            "ReverseSde": lambda n: sv.ReverseSde(n),
            "ReverseSde, rho = inf": lambda n: sv.ReverseSde(n, rho=math.inf),
            "ReverseSde, order 2": lambda n: sv.ReverseSde(n // 2, order=2, rho=math.inf),
            "Ddim, eta = 1": lambda n: sv.Ddim(n, eta=1.0, rho=math.inf),
            "PredictorCorrector": lambda n: sv.PredictorCorrector(n // 2),
            "AnnealedLangevin": lambda n: sv.AnnealedLangevin(n // 8, 8),
        }
    return {name: through(method, case.kind == "flow") for name, method in found.items()}


def main() -> None:
    """One case."""
    case = read_case()
    jax.config.update("jax_enable_x64", case.kind == "flow")
    answer(run(case, methods(case)), {"solvers": sv.__version__, "jax": version("jax")})


if __name__ == "__main__":
    main()
