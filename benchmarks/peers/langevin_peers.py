"""Run one case of `langevin.py` with BlackJAX, NumPyro and Diffrax. See `langevin_problem.py`.

BlackJAX's MALA has a scalar step and no adaptation; its step is tuned here to an acceptance of 0.574 by bisection on
short runs, which costs it nothing in the table. NUTS of both libraries adapts step and diagonal metric.
"""

# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import blackjax
import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro
from langevin_problem import (
    FIELD_DATUM,
    FIELD_NOISE,
    SDE_STEP,
    Problem,
    answer,
    field_answer,
    field_covariance,
    field_nodes,
    read_case,
)

VERSIONS = {name: version(name) for name in ("blackjax", "numpyro", "diffrax")}


def chains_of(kernel: Any, steps: int) -> Callable:
    """All chains of a BlackJAX kernel as one compiled program: states, key -> states, positions, reports."""

    @jax.jit
    def run(states: Any, key: Any) -> Any:
        def step(states: Any, key: Any) -> Any:
            keys = jax.random.split(key, jax.tree.leaves(states)[0].shape[0])
            states, info = jax.vmap(kernel.step)(keys, states)
            return states, (states.position, info)

        return jax.lax.scan(step, states, jax.random.split(key, steps))

    return run


def median_of(function: Callable, repeats: int) -> tuple[float, float, Any]:
    """Median seconds, seconds of compilation, and the last result."""
    begin = time.perf_counter()
    jax.block_until_ready(function(0))
    first, found, result = time.perf_counter() - begin, [], None
    for seed in range(1, repeats + 1):
        begin = time.perf_counter()
        result = jax.block_until_ready(function(seed))
        found.append(time.perf_counter() - begin)
    took = sorted(found)[len(found) // 2]
    return took, first - took, result


def blackjax_mala(problem: Problem, starts: Any) -> None:
    """The step by bisection, a warm-up, the draws."""
    low, high = 1e-6 / problem.condition, 10.0
    for _ in range(18):
        middle = (low * high) ** 0.5
        kernel = blackjax.mala(problem.logdensity, middle)
        _, (_, info) = chains_of(kernel, 100)(jax.vmap(kernel.init)(starts), jax.random.key(9))
        low, high = (middle, high) if float(info.acceptance_rate.mean()) > 0.574 else (low, middle)
    kernel = blackjax.mala(problem.logdensity, low)
    states, _ = chains_of(kernel, problem.warmup)(jax.vmap(kernel.init)(starts), jax.random.key(8))
    run = chains_of(kernel, problem.steps)
    took, compiling, (_, (draws, _)) = median_of(lambda seed: run(states, jax.random.key(seed)), problem.repeats)
    gradients = problem.steps * problem.chains
    answer(problem, "blackjax mala", took, compiling, gradients, draws.swapaxes(0, 1), versions=VERSIONS)


def blackjax_nuts(problem: Problem, starts: Any) -> None:
    """Window adaptation on one chain, then all."""
    warm = blackjax.window_adaptation(blackjax.nuts, problem.logdensity)
    (_, parameters), _ = warm.run(jax.random.key(7), starts[0], num_steps=problem.warmup)
    kernel = blackjax.nuts(problem.logdensity, **parameters)
    states, _ = chains_of(kernel, 100)(jax.vmap(kernel.init)(starts), jax.random.key(8))
    run = chains_of(kernel, problem.steps)
    took, compiling, (_, (draws, info)) = median_of(lambda seed: run(states, jax.random.key(seed)), problem.repeats)
    gradients = float(info.num_integration_steps.sum())
    answer(problem, "blackjax nuts", took, compiling, gradients, draws.swapaxes(0, 1), versions=VERSIONS)


def numpyro_nuts(problem: Problem, starts: Any) -> None:
    """Chains side by side, as `chain_method="vectorized"` runs them."""
    kernel = numpyro.infer.NUTS(potential_fn=lambda x: -problem.logdensity(x))
    sampler = numpyro.infer.MCMC(
        kernel,
        num_warmup=problem.warmup,
        num_samples=problem.steps,
        num_chains=problem.chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.warmup(jax.random.key(7), init_params=starts, collect_warmup=False)
    state = sampler.post_warmup_state

    def run(seed: int) -> Any:
        sampler.post_warmup_state = state
        sampler.run(jax.random.key(seed), extra_fields=("num_steps",))
        return sampler.get_samples(group_by_chain=True), sampler.get_extra_fields()

    took, compiling, (draws, fields) = median_of(run, problem.repeats)
    answer(problem, "numpyro nuts", took, compiling, float(fields["num_steps"].sum()), draws, versions=VERSIONS)


def diffrax_sde(problem: Problem, starts: Any) -> None:
    """Euler-Maruyama with a Brownian tree, as many steps as ours."""
    h = SDE_STEP
    end = h * problem.steps
    slope = jax.grad(problem.logdensity)

    def one(start: Any, key: Any) -> Any:
        noise = diffrax.VirtualBrownianTree(0.0, end, tol=h / 2, shape=(problem.d,), key=key)
        diffusion = diffrax.ControlTerm(lambda t, y, args: lx.DiagonalLinearOperator(jnp.full_like(y, 2**0.5)), noise)
        terms = diffrax.MultiTerm(diffrax.ODETerm(lambda t, y, args: slope(y)), diffusion)
        saved = diffrax.SaveAt(ts=jnp.linspace(h, end, problem.steps))
        found = diffrax.diffeqsolve(
            terms, diffrax.Euler(), 0.0, end, h, start, saveat=saved, max_steps=problem.steps + 8
        )
        return found.ys

    program = jax.jit(lambda key: jax.vmap(one)(starts, jax.random.split(key, problem.chains)))
    took, compiling, draws = median_of(lambda seed: program(jax.random.key(seed)), problem.repeats)
    answer(problem, "diffrax tree", took, compiling, problem.steps * problem.chains, draws, versions=VERSIONS)


def blackjax_field(problem: Problem) -> None:
    """Elliptical slice sampling, BlackJAX's kernel for Gaussian priors, with the dense covariance that it asks for.

    Every step shrinks its bracket until a point is accepted: evaluations of the likelihood are counted, as ours are.
    """
    side = round(problem.d**0.5)
    everywhere = np.stack(np.unravel_index(np.arange(problem.d), (side, side)))
    seen = jnp.asarray(np.ravel_multi_index(tuple(field_nodes(side)), (side, side)))
    covariance = jnp.asarray(field_covariance(side, everywhere, everywhere), jnp.float32)
    # Round-off of single precision must not make it indefinite.
    covariance = covariance + 1e-5 * jnp.eye(problem.d, dtype=jnp.float32)

    def likelihood(x: Any) -> Any:
        return -0.5 * jnp.sum(((x[seen] - FIELD_DATUM) / FIELD_NOISE) ** 2)

    kernel = blackjax.elliptical_slice(likelihood, mean=jnp.zeros(problem.d, jnp.float32), cov=covariance)
    starts = jnp.linalg.cholesky(covariance) @ jax.random.normal(jax.random.key(6), (problem.d, problem.chains))

    @partial(jax.jit, static_argnums=2)
    def run(states: Any, key: Any, steps: int) -> Any:
        def step(states: Any, key: Any) -> Any:
            states, info = jax.vmap(kernel.step)(jax.random.split(key, problem.chains), states)
            return states, (states.position[:, seen], info.subiter)

        return jax.lax.scan(step, states, jax.random.split(key, steps))

    states, _ = run(jax.vmap(kernel.init)(starts.T), jax.random.key(8), problem.warmup)
    took, compiling, (_, (draws, tries)) = median_of(
        lambda seed: run(states, jax.random.key(seed), problem.steps), problem.repeats
    )
    solves = float(tries.sum())
    field_answer(side, "blackjax elliptical slice", took, compiling, solves, draws.swapaxes(0, 1), versions=VERSIONS)


def main(problem: Problem) -> None:
    """The peers that the case is about."""
    if problem.problem == "sde":
        return diffrax_sde(problem, jnp.asarray(problem.starts()))
    if problem.problem == "field":
        return blackjax_field(problem)
    starts = jnp.asarray(problem.starts())
    blackjax_mala(problem, starts)
    blackjax_nuts(problem, starts)
    numpyro_nuts(problem, starts)
    return None


if __name__ == "__main__":
    main(read_case())
