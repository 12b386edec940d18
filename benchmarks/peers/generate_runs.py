"""How a JAX code is timed and counted in `generate.py`, the same for every library.

A library offers `build(score, evaluations) -> draw`, with `draw(starts, key) -> samples`, and compiles itself.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from counting import Ruler
from generate_problem import Case, Row, judged, mixture_score

Draw = Callable[[Any, Any], Any]
Build = Callable[[Callable[[Any, Any], Any], int], Draw]
FEW = 16  # samples of the runs in which evaluations are counted


def run(case: Case, methods: dict[str, Build]) -> list[Row]:
    """Every method at every number of evaluations."""
    means = case.means()

    def score(x: Any, sigma: Any) -> Any:
        return mixture_score(jnp, jnp.asarray(means, x.dtype), x, sigma)

    starts = jnp.asarray(case.starts())
    return [
        {"method": name, **assess(case, build, score, count, starts)}
        for name, build in methods.items()
        for count in case.evaluations
    ]


def assess(case: Case, build: Build, score: Callable, count: int, starts: Any) -> Row:
    """Time, count and judge one method at one number of evaluations."""
    draw = build(score, count)
    begin = time.perf_counter()
    jax.block_until_ready(draw(starts, jax.random.key(0)))
    first, seconds, draws = time.perf_counter() - begin, [], []
    for seed in range(1, case.repeats + 1):
        begin = time.perf_counter()
        draws.append(np.asarray(draw(starts, jax.random.key(seed))))
        seconds.append(time.perf_counter() - begin)
    took = sorted(seconds)[len(seconds) // 2]
    error, scatter = judged(case, np.stack(draws))
    ruler, few = Ruler(), starts[:FEW]

    def counted(x: Any, sigma: Any) -> Any:
        ruler.mark("values", x)
        return score(x, sigma)

    jax.block_until_ready(build(counted, count)(few, jax.random.key(0)))
    evaluations = ruler.read()["values"] / len(few)
    told = {"evaluations": evaluations, "seconds": took, "compile": first - took}
    return {"wanted": count, **told, "error": error, "scatter": scatter}
