"""How a JAX code is compiled, timed and counted, the same for every library.

A library offers `build(function) -> solve`, with `solve(*parameters) -> (answer, claims)`: the solution, and whether it
says that it succeeded. The gradient is `jax.grad` through it.
"""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from counting import Ruler
from equations import (
    ALPHA,
    TOLERANCE,
    A,
    B,
    Case,
    Row,
    brusselator,
    brusselator_start,
    h_map,
    judge_h,
    judge_layer,
    kernel,
    layer,
    layer_truth,
    source,
)
from problem import clock

Solve = Callable[..., tuple[Any, Any]]
Build = Callable[[Callable[..., Any]], Solve]


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float, int]:
    """Compile ahead of time; returns the program, the seconds it took and its bytes of temporary memory."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    return program, seconds, int(memory.temp_size_in_bytes) if memory is not None else 0


def assess(
    build: Build,
    function: Callable[..., Any],
    args: tuple,
    objective: Callable[..., Any],
    wrt: int,
    repeats: int,
    transposed: bool = True,
) -> Row:
    """Time and count the solution and the gradient of `objective(solution, argument)` by argument number `wrt`."""

    def programs(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        solve = build(function)
        return solve, jax.grad(lambda *a: objective(solve(*a)[0]), argnums=wrt)

    solve, gradient = programs(function)
    program, compiling, _ = compiled(solve, *args)
    value, claims = jax.block_until_ready(program(*args))
    row: Row = {
        "claims": bool(np.all(claims)),
        "compile": compiling,
        "seconds": clock(lambda: jax.block_until_ready(program(*args)), repeats),
    }
    backward, row["gradient_compile"], row["temporary_bytes"] = compiled(gradient, *args)
    row["gradient_seconds"] = clock(lambda: jax.block_until_ready(backward(*args)), repeats)
    ruler = Ruler()
    solve, gradient = programs(ruler.counted(function, transposed))
    jax.block_until_ready(jax.jit(solve)(*args))
    row["counts"] = ruler.read()
    row["evaluations"] = sum(row["counts"].values())
    jax.block_until_ready(jax.jit(gradient)(*args))
    row["gradient_counts"] = ruler.read()
    return {**row, "value": value, "gradient": jax.device_get(backward(*args))}


def public(row: Row) -> Row:
    """A row without its arrays."""
    return {k: v for k, v in row.items() if k not in ("value", "gradient")}


def run_brusselator(case: Case, methods: dict[str, Build]) -> list[Row]:
    """B1: the derivative of mean(u) by (A, B, alpha) is (0, 1, 0)."""
    disc = jnp.asarray(source(case.size))
    start = jnp.asarray(brusselator_start(case.size))
    args = (start, jnp.array([A, B, ALPHA]), disc)

    def rates(state: Any, p: Any, disc: Any) -> Any:
        return brusselator(jnp, state, p[0], p[1], p[2], disc)

    rows = []
    for name, build in methods.items():
        row = assess(build, rates, args, lambda x: jnp.mean(x[0]), 1, case.repeats)
        residual = float(jnp.linalg.norm(rates(row["value"], *args[1:])) / jnp.linalg.norm(rates(*args)))
        row["residual"], row["solved"] = residual, residual <= 2 * TOLERANCE["B1"]
        row["mean_error"] = abs(float(row["value"][0].mean()) - B - float(disc.mean()))
        row["gradient_error"] = float(np.abs(row["gradient"] - np.array([0.0, 1.0, 0.0])).max())
        rows.append({"method": name, **public(row)})
    return rows


def run_h_equation(case: Case, methods: dict[str, Build]) -> list[Row]:
    """B2: closed forms of the mean and of its derivative."""
    matrix = jnp.asarray(kernel(case.size))
    args = (jnp.ones(case.size), jnp.asarray(case.parameter), matrix)
    rows = []
    for name, build in methods.items():
        row = assess(build, h_map, args, jnp.mean, 1, case.repeats, transposed=False)
        row["residual"] = float(jnp.linalg.norm(h_map(row["value"], *args[1:]) - row["value"]))
        row["solved"] = row["residual"] <= 2 * TOLERANCE["B2"]
        row |= judge_h(float(row["value"].mean()), float(row["gradient"]), case.parameter)
        rows.append({"method": name, **public(row)})
    return rows


def cell(y: Any, p: Any) -> Any:
    """tanh(gain W y + U x + b) of one sample; p = (gain, x, weights)."""
    gain, x, weights = p
    return jnp.tanh(gain * (weights["w"] @ y) + weights["u"] @ x + weights["b"])


def run_layers(case: Case, methods: dict[str, Build]) -> list[Row]:
    """B3: samples by `jax.vmap`, the gradient by the weights that they share."""
    arrays = layer(case.size, round(case.parameter))
    truth = layer_truth(arrays)
    weights = {k: jnp.asarray(arrays[k]) for k in ("w", "u", "b")}
    gain, x = jnp.asarray(arrays["gain"]), jnp.asarray(arrays["x"])
    rows = []
    for name, build in methods.items():

        def batched(function: Callable[..., Any], build: Build = build) -> Solve:
            solve = build(function)

            def all_samples(weights: Any, gain: Any, x: Any) -> tuple[Any, Any]:
                return jax.vmap(lambda g, x: solve(jnp.zeros_like(x), (g, x, weights)))(gain, x)

            return all_samples

        row = assess(batched, cell, (weights, gain, x), lambda y: jnp.mean(y**2), 0, case.repeats, transposed=False)
        again = jax.vmap(lambda y, g, x: cell(y, (g, x, weights)))(row["value"], gain, x)
        row["residual"] = float(jnp.linalg.norm(again - row["value"], axis=1).max())
        row["solved"] = row["residual"] <= 2 * TOLERANCE["B3"]
        row["gradient_error"] = judge_layer(row["gradient"], truth)
        rows.append({"method": name, **public(row)})
    return rows


def standard_set() -> ModuleType:
    """The 23 systems, from the tests."""
    path = Path(__file__).resolve().parents[2] / "tests" / "fixed_points" / "standard_set.py"
    spec = importlib.util.spec_from_file_location("standard_set", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_standard_set(case: Case, methods: dict[str, Build]) -> list[Row]:
    """B5: how many of the 23 are solved, what is claimed, and the cost. A solver that raises has claimed no success."""
    rows = []
    for name, build in methods.items():
        row: Row = {"solved": 0, "false_claims": 0, "evaluations": 0, "compile": 0.0, "seconds": 0.0, "missed": []}
        for problem in standard_set().PROBLEMS:
            start = jnp.asarray(problem.start)
            solve = build(lambda x, f=problem.residual: f(x))
            try:
                program, compiling, _ = compiled(solve, start)
                value, claims = jax.block_until_ready(program(start))
            except Exception:
                row["missed"].append(problem.number)
                continue
            norm = float(jnp.linalg.norm(problem.residual(value)))
            solved = norm <= 2 * TOLERANCE["B5"]
            ruler = Ruler()
            jax.block_until_ready(
                jax.jit(build(ruler.counted(lambda x, f=problem.residual: f(x), transposed=False)))(start)
            )
            row["solved"] += solved
            row["false_claims"] += bool(claims) and not solved
            row["evaluations"] += sum(ruler.read().values()) if solved else 0
            row["compile"] += compiling / 23
            row["seconds"] += clock(lambda p=program, s=start: jax.block_until_ready(p(s)), case.repeats)["median"]
            if not solved:
                row["missed"].append(problem.number)
        rows.append({"method": name, **row})
    return rows


RUNS = {"B1": run_brusselator, "B2": run_h_equation, "B3": run_layers, "B5": run_standard_set}


def run(case: Case, methods: dict[str, Build]) -> list[Row]:
    """All methods that the case asks for."""
    return RUNS[case.bench](case, {name: build for name, build in methods.items() if case.wants(name)})
