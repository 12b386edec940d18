"""Run one case with solvers. See `peers/problem.py` for the case and the answer."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from peers.problem import SPACING, Problem, clock, read_case, report, sample

import solvers as sv


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float, int]:
    """Compile ahead of time; returns the function, the seconds it took and its bytes of temporary memory."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    return program, seconds, int(memory.temp_size_in_bytes) if memory is not None else 0


def main(problem: Problem) -> None:
    """Time forward runs, and gradients where the case asks for them."""
    grid = sv.Grid(shape=problem.dims, spacing=SPACING)
    boundary = sv.Absorbing(problem.layers) if problem.layers else sv.Free()
    sources, receivers = problem.source() * SPACING, problem.receivers() * SPACING

    def record(speed: Float[Array, "..."], signal: Float[Array, " steps"], adjoint: Any) -> Float[Array, "steps n"]:
        wave = sv.Wave(grid, speed, order=problem.order, boundary=boundary, sources=sources)
        run = sv.simulate(
            wave,
            wave.at_rest(),
            steps=problem.steps,
            dt=problem.dt,
            inputs=signal,
            observe=wave.receivers(receivers),
            adjoint=adjoint,
        )
        return run.observed

    def forward(speed: Float[Array, "..."], signal: Float[Array, " steps"]) -> Float[Array, "steps n"]:
        return record(speed, signal, "auto")

    def loss(speed: Float[Array, "..."], signal: Float[Array, " steps"]) -> Float[Array, ""]:
        return jnp.mean(record(speed, signal, sv.Checkpoint(levels=2)) ** 2)

    args = jnp.asarray(problem.speed()), jnp.asarray(problem.signal())
    program, compiling, temporary = compiled(forward, *args)
    traces = np.asarray(program(*args))
    if not np.isfinite(traces).all():
        raise SystemExit("The record is not finite.")
    seconds = clock(lambda: jax.block_until_ready(program(*args)), problem.repeats)
    more: dict[str, Any] = {}
    if problem.mode == "gradient":
        more["forward_seconds"] = seconds
        gradient, compiling, temporary = compiled(jax.grad(loss), *args)
        seconds = clock(lambda: jax.block_until_ready(gradient(*args)), problem.repeats)
    report(
        problem,
        seconds,
        {"solvers": sv.__version__, "jax": version("jax"), "jaxlib": version("jaxlib")},
        sample(traces[:-1]),
        compile=compiling,
        temporary_bytes=temporary,
        **more,
    )


if __name__ == "__main__":
    main(read_case())
