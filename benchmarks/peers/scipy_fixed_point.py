"""Run one case with SciPy's solvers of nonlinear equations, which give no derivatives. See `equations.py`."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy
from equations import (
    ALPHA,
    MOST,
    TOLERANCE,
    A,
    B,
    Case,
    Row,
    answer,
    block_inverse,
    brusselator,
    brusselator_start,
    h_map,
    judge_h,
    kernel,
    read_case,
    source,
    symbol,
)
from jax_runs import standard_set
from problem import clock
from scipy import optimize
from scipy.sparse.linalg import LinearOperator


class Count:
    """A function that counts its evaluations."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.values = function, 0

    def __call__(self, x: Any) -> Any:
        self.values += 1
        return self.function(x)


def norm(x: Any) -> float:
    """2-norm."""
    return float(np.linalg.norm(x))


def measure(name: str, solve: Callable, function: Callable, tolerance: float, case: Case) -> tuple[Row, Any]:
    """Solve F(x) = 0 with one of the functions of `scipy.optimize`."""
    count = Count(function)
    claims = True
    try:
        value = solve(count, tolerance)
    except (optimize.NoConvergence, ValueError) as problem:
        value, claims = np.asarray(problem.args[0] if isinstance(problem.args[0], np.ndarray) else np.nan), False
    evaluations = count.values

    def again() -> None:
        try:
            solve(function, tolerance)
        except (optimize.NoConvergence, ValueError):
            return

    residual = norm(function(value)) if value.ndim else float("nan")
    row = {"method": name, "claims": claims, "evaluations": evaluations, "residual": residual}
    return {**row, "solved": residual <= 2 * tolerance, "seconds": clock(again, case.repeats)}, value


def run_brusselator(case: Case) -> list[Row]:
    """B1: Newton-Krylov, plain and with the inverse of the linear part at the constant state as preconditioner."""
    n, disc, start = case.size, source(case.size), brusselator_start(case.size)
    eigenvalues, mean = symbol(n), B + source(n).mean()

    def rates(x: Any) -> Any:
        return brusselator(np, x, A, B, ALPHA, disc)

    inverse = LinearOperator(
        (2 * n * n, 2 * n * n),
        matvec=lambda r: block_inverse(np, r.reshape(2, n, n), mean, A / mean, A, ALPHA, eigenvalues).ravel(),
        dtype=float,
    )
    options: dict[str, dict] = {"newton_krylov": {"inner_maxiter": 100}, "newton_krylov, FFT": {"inner_M": inverse}}
    rows = []
    for name in filter(case.wants, options):

        def solve(function: Callable, tolerance: float, more: dict = options[name]) -> Any:
            return optimize.newton_krylov(
                function, start, method="gmres", f_tol=tolerance, maxiter=50, tol_norm=norm, **more
            )

        row, value = measure(name, solve, rates, TOLERANCE["B1"] * norm(rates(start)), case)
        row["residual"] /= norm(rates(start))
        row["mean_error"] = abs(float(value[0].mean() - B - disc.mean())) if value.ndim else float("nan")
        rows.append(row)
    return rows


def run_h_equation(case: Case) -> list[Row]:
    """B2."""
    matrix, c = kernel(case.size), case.parameter

    def of(method: Callable, **more: Any) -> Callable:
        def solve(function: Callable, tolerance: float) -> Any:
            most = {"f_tol": tolerance, "tol_norm": norm, "maxiter": MOST}
            return method(function, np.ones(case.size), **most, **more)

        return solve

    options = {
        "anderson": of(optimize.anderson, alpha=-1, M=5, w0=1e-7),
        "broyden1": of(optimize.broyden1, alpha=-1),
        "krylov": of(optimize.newton_krylov),
    }
    rows = []
    for name in filter(case.wants, options):
        row, value = measure(name, options[name], lambda x: h_map(x, c, matrix) - x, TOLERANCE["B2"], case)
        rows.append({**row, **judge_h(float(value.mean()), None, c)})
    return rows


def run_standard_set(case: Case) -> list[Row]:
    """B5."""
    rows = []
    for name in filter(case.wants, ("hybr", "lm", "broyden1", "broyden2", "anderson", "krylov", "df-sane")):
        row: Row = {"solved": 0, "false_claims": 0, "evaluations": 0, "seconds": 0.0, "missed": []}
        iterative = {"fatol": TOLERANCE["B5"], "maxiter": 2000, "tol_norm": norm}
        choices: dict[str, dict] = {
            "hybr": {"maxfev": 20_000},
            "lm": {"maxiter": 20_000},
            "df-sane": {"maxfev": 20_000, "fatol": TOLERANCE["B5"]},
        }
        for problem in standard_set().PROBLEMS:
            function = Count(jax.jit(problem.residual))
            more = {"options": choices.get(name, iterative)}
            if name in ("hybr", "lm"):
                more["tol"] = 1e-12

            def solve(f: Callable, start: Any = problem.start, name: str = name, more: dict = more) -> Any:
                return optimize.root(lambda x: np.asarray(f(x)), start, method=name, **more)

            try:
                found = solve(function)
                used, value, claims = function.values, found.x, bool(found.success)
                row["seconds"] += clock(lambda: solve(function), case.repeats)["median"]  # noqa: B023
            except (ValueError, np.linalg.LinAlgError):
                row["missed"].append(problem.number)
                continue
            solved = norm(function(value)) <= 2 * TOLERANCE["B5"]
            row["solved"] += solved
            row["false_claims"] += claims and not solved
            row["evaluations"] += used if solved else 0
            if not solved:
                row["missed"].append(problem.number)
        rows.append({"method": name, **row})
    return rows


def main() -> None:
    """One case."""
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    case = read_case()
    runs = {"B1": run_brusselator, "B2": run_h_equation, "B5": run_standard_set}
    rows = runs[case.bench](case) if case.bench in runs else []
    answer(rows, {"scipy": scipy.__version__, "numpy": np.__version__})


if __name__ == "__main__":
    main()
