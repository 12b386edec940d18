"""Run one case of `langevin.py` with solvers. See `peers/langevin_problem.py` for the case and the answer."""

import sys
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from peers.langevin_problem import (
    FIELD_DATUM,
    FIELD_LENGTH,
    FIELD_NOISE,
    SDE_STEP,
    Problem,
    answer,
    field_answer,
    field_nodes,
    read_case,
)

import solvers as sv


def timed(problem: Problem, name: str, kernel: Any, starts: Any, **choices: Any) -> None:
    """Warm up, then time the draws alone, compilation apart."""
    key, versions = jax.random.key(0), {"solvers": sv.__version__, "jax": version("jax")}
    first = sv.sample(kernel, key, starts, steps=1, warmup=problem.warmup, **choices)
    begin = time.perf_counter()
    sv.sample(first.kernel, key, first.positions, steps=problem.steps)
    compiling = time.perf_counter() - begin
    seconds = []
    for seed in range(1, problem.repeats + 1):
        begin = time.perf_counter()
        run = sv.sample(first.kernel, jax.random.key(seed), first.positions, steps=problem.steps)
        seconds.append(time.perf_counter() - begin)
    took = sorted(seconds)[len(seconds) // 2]
    answer(problem, name, took, compiling - took, float(run.gradients.sum()), run.draws, versions=versions)


def sde(problem: Problem) -> None:
    """A chain of the Langevin equation, a gradient and a noise per step: one program, as the peer's; and `sample`."""
    kernel = sv.Ula(problem.logdensity, step=SDE_STEP)
    starts = jnp.asarray(problem.starts())
    versions = {"solvers": sv.__version__, "jax": version("jax")}

    @jax.jit
    def program(key: Any) -> Any:
        return sv.pathwise(kernel, key, starts, steps=problem.steps).observed

    begin = time.perf_counter()
    jax.block_until_ready(program(jax.random.key(0)))
    first, seconds, draws = time.perf_counter() - begin, [], None
    for seed in range(1, problem.repeats + 1):
        begin = time.perf_counter()
        draws = jax.block_until_ready(program(jax.random.key(seed)))
        seconds.append(time.perf_counter() - begin)
    took = sorted(seconds)[len(seconds) // 2]
    gradients = float(problem.steps * problem.chains)
    answer(problem, "ours ula, pathwise", took, first - took, gradients, draws, versions=versions)
    timed(problem, "ours ula, sample", kernel, starts)


def field(problem: Problem) -> None:
    """Function space: a Gaussian field seen at 32 points, on a grid of d nodes."""
    side = round(problem.d**0.5)
    prior = sv.MaternField(sv.Grid((side, side), 1.0 / side), length=FIELD_LENGTH, smoothness=1.5)
    rows, columns = field_nodes(side)
    misfit = sv.LeastSquares(lambda x: (x[rows, columns] - FIELD_DATUM) / FIELD_NOISE)
    starts = jax.vmap(prior.draw)(jax.random.split(jax.random.key(6), problem.chains))
    kernels = {
        "ours pcn": sv.Pcn(misfit, prior, step=0.1),
        "ours inf-mala": sv.InfinityMala(misfit, prior, step=0.1),
    }
    choices: dict[str, Any] = dict(observe=lambda x: x[rows, columns])
    for name, kernel in kernels.items():
        first = sv.sample(kernel, jax.random.key(0), starts, steps=1, warmup=problem.warmup)
        begin = time.perf_counter()
        sv.sample(first.kernel, jax.random.key(0), first.positions, steps=problem.steps, **choices)
        compiling, seconds, run = time.perf_counter() - begin, [], None
        for seed in range(1, problem.repeats + 1):
            begin = time.perf_counter()
            run = sv.sample(first.kernel, jax.random.key(seed), first.positions, steps=problem.steps, **choices)
            seconds.append(time.perf_counter() - begin)
        took, solves = sorted(seconds)[len(seconds) // 2], problem.steps * problem.chains
        assert run is not None
        accepted = float(run.acceptance.mean())
        field_answer(side, name, took, compiling - took, solves, run.draws, acceptance=accepted)


def main(problem: Problem) -> None:
    """Every kernel that the case is about."""
    if problem.problem == "sde":
        return sde(problem)
    if problem.problem == "field":
        return field(problem)
    starts = jnp.asarray(problem.starts())
    small = 0.1 / problem.condition
    timed(problem, "ours mala, metric", sv.Mala(problem.logdensity, step=small), starts)
    timed(problem, "ours mala, step only", sv.Mala(problem.logdensity, step=small), starts, adapt=sv.AdaptStep())
    return None


if __name__ == "__main__":
    sys.path.insert(0, "peers")
    main(read_case())
