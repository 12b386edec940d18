"""Run one case with TorchDEQ. See `equations.py` for the case and the answer.

Derivatives by implicit differentiation (`ift=True`) with the same solver backwards. It stops a batch on its largest
residual and reports the lowest residual of every sample, which is taken as its claim.
"""

# pyright: reportMissingImports=false

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from equations import MOST, TOLERANCE, Case, Row, answer, judge_h, judge_layer, kernel, layer, layer_truth, read_case
from problem import clock
from torchdeq import get_deq

SOLVERS = {"Anderson": "anderson", "Broyden": "broyden", "FixedPointIteration": "fixed_point_iter"}


class Count:
    """A function that counts the samples it is evaluated for."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.samples = function, 0

    def __call__(self, y: torch.Tensor) -> torch.Tensor:
        self.samples += y.shape[0]
        return self.function(y)


def solver(name: str, tolerance: float) -> Any:
    """A model with one solver, forward and back."""
    return get_deq(
        f_solver=SOLVERS[name],
        b_solver=SOLVERS[name],
        f_max_iter=MOST,
        b_max_iter=MOST,
        f_tol=tolerance,
        b_tol=tolerance / 10,
        ift=True,
    )


def measure(name: str, tolerance: float, function: Callable, start: torch.Tensor, loss: Callable, case: Case) -> Row:
    """Time the solution and, with it, the gradient, which `loss(y).backward()` leaves in the leaves."""
    deq = solver(name, tolerance)
    info = {}

    def forward() -> torch.Tensor:
        count = Count(function)
        with torch.no_grad():
            out, stats = deq(count, start)
        info.update(samples=count.samples, lowest=float(stats["abs_lowest"].max()))
        return out[-1]

    def backward() -> None:
        out, _ = deq(function, start)
        loss(out[-1]).backward()

    value = forward()
    return {
        "method": name,
        "claims": info["lowest"] <= tolerance,
        "evaluations": info["samples"],
        "seconds": clock(forward, case.repeats),
        "gradient_seconds": clock(backward, case.repeats),
        "residual": float((function(value) - value).norm(dim=1).max()),
    }


def run_h_equation(case: Case) -> list[Row]:
    """B2."""
    matrix = torch.from_numpy(kernel(case.size))
    c = torch.tensor(case.parameter, dtype=torch.float64, requires_grad=True)
    start = torch.ones(1, case.size, dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        return 1 / (1 - c * (x @ matrix.T))

    rows = []
    for name in filter(case.wants, SOLVERS):
        means = []

        def loss(x: torch.Tensor, means: list = means) -> torch.Tensor:
            c.grad = None
            means.append(float(x.mean()))
            return x.mean()

        row = measure(name, TOLERANCE["B2"], function, start, loss, case)
        slope = float("nan") if c.grad is None else float(c.grad)
        row["solved"] = row["residual"] <= 2 * TOLERANCE["B2"]
        rows.append({**row, **judge_h(means[-1], slope, case.parameter)})
    return rows


def run_layers(case: Case) -> list[Row]:
    """B3."""
    arrays = layer(case.size, round(case.parameter))
    truth = layer_truth(arrays)
    fixed = {k: torch.from_numpy(arrays[k]) for k in ("x", "gain")}
    weights = {k: torch.from_numpy(arrays[k]).requires_grad_() for k in ("w", "u", "b")}

    def function(y: torch.Tensor) -> torch.Tensor:
        push = fixed["x"] @ weights["u"].T + weights["b"]
        return torch.tanh(fixed["gain"][:, None] * (y @ weights["w"].T) + push)

    def loss(y: torch.Tensor) -> torch.Tensor:
        for value in weights.values():
            value.grad = None
        return (y**2).mean()

    rows = []
    for name in filter(case.wants, SOLVERS):
        row = measure(name, TOLERANCE["B3"], function, torch.zeros_like(fixed["x"]), loss, case)
        found = {k: np.zeros(1) if v.grad is None else v.grad.numpy() for k, v in weights.items()}
        row["gradient_error"] = judge_layer(found, truth)
        row["solved"] = row["residual"] <= 2 * TOLERANCE["B3"]
        rows.append(row)
    return rows


def main() -> None:
    """One case."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    case = read_case()
    runs = {"B2": run_h_equation, "B3": run_layers}
    rows = runs[case.bench](case) if case.bench in runs else []
    answer(rows, {"torchdeq": version("torchdeq"), "torch": version("torch")})


if __name__ == "__main__":
    main()
