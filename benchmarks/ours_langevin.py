"""Run one case of `langevin.py` with solvers. See `peers/langevin_problem.py` for the case and the answer."""

import sys
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from peers.langevin_problem import Problem, answer, read_case

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
    """A chain of the Langevin equation, one gradient and one noise per step, as one compiled loop."""
    kernel = sv.Ula(problem.logdensity, step=1e-3)
    starts = jnp.asarray(problem.starts())
    timed(problem, "ours ula", kernel, starts)


def field(problem: Problem) -> None:
    """Function space: a Gaussian field seen at 32 points, on a grid of d nodes."""
    side = round(problem.d**0.5)
    prior = sv.MaternField(sv.Grid((side, side), 1.0 / side), length=0.2, smoothness=1.5)
    places = jax.random.uniform(jax.random.key(5), (32, 2))
    index = jnp.floor(places * side).astype(int)

    def misfit(x: Any) -> Any:
        return -0.5 * jnp.sum(((x[index[:, 0], index[:, 1]] - 0.5) / 0.3) ** 2)

    starts = jax.vmap(prior.draw)(jax.random.split(jax.random.key(6), problem.chains))
    kernels = {
        "ours pcn": sv.Pcn(misfit, prior, step=0.1),
        "ours inf-mala": sv.InfinityMala(misfit, prior, step=0.1),
    }
    for name, kernel in kernels.items():
        choices: dict[str, Any] = dict(observe=lambda x: x[index[0, 0], index[0, 1]])
        first = sv.sample(kernel, jax.random.key(0), starts, steps=1, warmup=problem.warmup)
        sv.sample(first.kernel, jax.random.key(0), first.positions, steps=problem.steps, **choices)
        begin = time.perf_counter()
        run = sv.sample(first.kernel, jax.random.key(1), first.positions, steps=problem.steps, **choices)
        took = time.perf_counter() - begin
        told = run.summary().numbers["x"]
        solves = problem.steps * problem.chains
        print(f'{{"code": "{name}", "seconds": {took}, "ess": {float(told.ess_bulk)}, "solves": {solves}, '
              f'"acceptance": {float(run.acceptance.mean())}}}', flush=True)  # fmt: skip


def main(problem: Problem) -> None:
    """Every kernel that the case is about."""
    if problem.problem == "sde":
        return sde(problem.__class__(**{**problem.__dict__, "problem": "gaussian"}))
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
