"""Samples against exact answers: posteriors, standard errors, diagnostics, and runs that are interrupted."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ..core.long_run import run
from ..core.sinks import BatchMeans, Moments
from ..sampling.chains import Samples, sample
from ..sampling.diagnostics import ess_bulk
from ..sampling.mala import Mala
from ..sampling.overdamped import LeimkuhlerMatthews
from ..sampling.targets import eight_schools
from .record import Evidence, Row


def eight_schools_tau() -> Evidence:
    """Posterior mean of the scatter between schools; error in standard errors of the mean."""
    target = eight_schools()
    starts = jax.tree.map(lambda x: jnp.zeros((4, *x.shape)), target.start)
    found = sample(
        Mala(target.logdensity, step=0.1), jax.random.key(0), starts, steps=20_000, warmup=1000,
        observe=target.parameters,
    ).check()  # fmt: skip
    numbers = found.summary().numbers["tau"]
    exact = float(target.mean["tau"])
    return Evidence(float(numbers.mean), exact, abs(float(numbers.mean) - exact) / float(numbers.mcse), 4.0)


def scatter_of_leimkuhler_matthews() -> Evidence:
    """Variance of N(0, 1) at a step of 1, where the Euler scheme gives 2; error in standard errors."""
    kernel = LeimkuhlerMatthews(lambda x: -0.5 * jnp.sum(x**2), step=1.0)
    sinks = {"squares": BatchMeans()}
    found = sample(
        kernel, jax.random.key(1), jnp.zeros((64, 1)), steps=20_000, sinks=sinks, observe=lambda x: x**2
    ).check()
    told = found.sinks["squares"]
    return Evidence(float(told.mean[0]), 1.0, abs(float(told.mean[0]) - 1.0) / float(told.mcse[0]), 4.0)


def effective_sample_size() -> Evidence:
    """Bulk effective sample size of an autoregression with rho = 0.9, N (1 - rho) / (1 + rho); relative error."""
    rho, n = 0.9, 100_000
    noise = np.random.default_rng(0).normal(size=(n, 4))
    x = np.zeros((n, 4))
    x[0] = noise[0] / np.sqrt(1 - rho**2)
    for t in range(1, n):
        x[t] = rho * x[t - 1] + noise[t]
    ours, exact = float(ess_bulk(x.T)), 4 * n * (1 - rho) / (1 + rho)
    return Evidence(ours, exact, abs(ours / exact - 1), 0.05)


def resumed_run() -> Evidence:
    """400 steps, a checkpoint, and 600 more, against 1000 at once in other chunks; largest difference."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, parts in (("parts.ckpt", (400, 1000)), ("whole.ckpt", (1000,))):
            chunk = 7 if len(parts) == 1 else None
            found: list[Samples] = [_quartic(steps, Path(folder) / name, chunk) for steps in parts]
            results.append(np.array(found[-1].draws))
    difference = float(np.abs(results[0] - results[1]).max())
    return Evidence(float(results[0][0, -1, 0]), float(results[1][0, -1, 0]), difference, 0.0)


def _quartic(steps: int, path: Path, chunk: int | None) -> Samples:
    kernel = Mala(lambda x: -jnp.sum(x**4), step=0.1)
    return sample(kernel, jax.random.key(2), jnp.ones((4, 3)), steps=steps, checkpoint=path, chunk=chunk)


def variance_in_constant_memory() -> Evidence:
    """Variance of a ramp 1 .. n around 1e6 by Welford's update, n (n + 1) / 12; relative error."""
    n = 10_000
    ramp = jnp.asarray(1e6, jnp.result_type(float))
    found = run(lambda x, i: x + 1.0, ramp, steps=n, sinks={"ramp": Moments()})
    ours, exact = float(found.sinks["ramp"].variance), n * (n + 1) / 12
    return Evidence(ours, exact, abs(ours / exact - 1), 1e-10)


ROWS = (
    Row("sampling.eight_schools", "mean of tau, in standard errors", "quadrature", eight_schools_tau),
    Row("sampling.leimkuhler", "variance at h = 1, standard errors", "theory", scatter_of_leimkuhler_matthews),
    Row("sampling.ess", "effective sample size, relative", "theory, AR(1)", effective_sample_size),
    Row("long_run.resume", "400 + 600 against 1000 steps", "identity", resumed_run),
    Row("long_run.moments", "variance of a ramp, relative", "theory", variance_in_constant_memory),
)
