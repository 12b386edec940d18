"""The log density of samples under a score, by the probability flow."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checks import as_field, is_known, whole
from ..core.ode import simulate_ode
from ..core.status import Status
from .flow import Flow, Watched, check_kinds
from .flow_methods import explicit
from .noise import prior_logdensity

EXACT = 32  # unknowns up to which the trace is summed over all columns
PROBES = 8


def log_likelihood(
    score: Callable,
    noise: Any,
    x: Any,
    key: Array,
    prior: Callable | None = None,
    with_error: bool = False,
    *,
    probes: int | None = None,
    rtol: float | int | None = None,
    atol: float | int | None = None,
    max_steps: int = 4096,
    adjoint: Any = None,
) -> Any:
    """Log density of samples at the smallest noise level, log p(x; sigma_min), by the probability flow.

    With y = x / alpha, k = sigma / alpha and the denoised mean D(y, k),

        dy/du = y - D(y, k),   u = log k,      log p(y_min) = log p(y_max) + integral of tr d(y - D)/dy du,

    from the smallest level to the largest, in adaptive steps. The density at the largest level is that of the Gaussian
    that the noise ends in, which is an approximation, or `prior`. Up to 32 unknowns the trace is exact; beyond, it is
    Hutchinson's estimate with random signs, the same along a trajectory: unbiased for log p up to the tolerance of the
    steps. Its standard error is measured between the signs, 8 of them by default, and is itself uncertain by about a
    quarter. Differentiable with respect to x, the score and the noise. A sample whose solve fails gives NaN.

    Divide by -x[0].size log(2) for bits per dimension.

    Args:
        score: function (x, sigma) -> score of one sample.
        noise: forward noise, such as `VarianceExploding(0.01, 10.0)`.
        x: samples; the first axis counts them.
        key: random key of the signs; sample c uses fold_in(key, c).
        prior: log density of one sample at the largest noise level; by default the Gaussian of the noise.
        with_error: also return the standard error of the estimated trace.
        probes: number of random signs per sample; None for 8, or the exact trace where that is cheap; 0 for the exact
            trace at any size.
        rtol: relative error per step; by default 1e-7 in double and 1e-4 in single precision.
        atol: absolute error per step; by default `rtol`.
        max_steps: most steps that are tried.
        adjoint: a diffrax adjoint, as for `simulate_ode`; the default is for reverse mode, `diffrax.ForwardMode()` is
            for forward mode.

    Returns:
        Log densities, shape (samples,); with `with_error` a pair (log densities, standard errors), 0 for exact traces.

    Raises:
        ValueError: for samples that are not finite, a wrong number of probes, one probe where an error is wanted, or a
            score that was made for another noise.
        TypeError: for a score, noise, key or prior of a wrong kind.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> noise = sv.VarianceExploding(0.01, 50.0)
        >>> score = sv.MixtureScore(jnp.zeros(2), 1.0, noise)
        >>> logp = log_likelihood(score, noise, jnp.zeros((1, 2)), jax.random.key(0))
        >>> bool(abs(logp[0] + jnp.log(2 * jnp.pi)) < 1e-3)
        True

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021, section 4.3 and equation (39);
        M. F. Hutchinson, Commun. Stat. Simul. 19 (1990) 433.
    """
    check_kinds(score, noise, key)
    if prior is not None and not callable(prior):
        raise TypeError(f"`prior` must be a function, the log density of one sample, or None; got {prior!r}.")
    x = as_field(x, "x")
    if x.ndim < 2:
        raise ValueError(f"`x` needs a leading axis of samples, got shape {x.shape}; for one sample use x[None].")
    size = math.prod(x.shape[1:])
    count = (0 if size <= EXACT else PROBES) if probes is None else whole(probes, "probes", least=0)
    if with_error and count == 1:
        raise ValueError("The error is measured between probes: take at least 2 of them, got probes=1.")
    if prior is None:
        _check_reach(noise, x)
    tolerances = (None if rtol is None else float(rtol), None if atol is None else float(atol))
    watched = Watched(score, fingerprint((score, noise, prior)))
    choices = (tolerances, whole(max_steps, "max_steps"), adjoint)
    value, error = _all(watched, noise, prior, x, key, count, choices)
    return (value, error) if with_error else value


@eqx.filter_jit
def _all(score: Any, noise: Any, prior: Any, x: Array, key: Array, probes: int, choices: tuple) -> tuple[Array, Array]:
    flow = Flow(score, noise)

    def one(x: Array, c: Array) -> tuple[Array, Array]:
        signs = jax.random.rademacher(jax.random.fold_in(key, c), (probes, *x.shape), x.dtype)
        return _one(flow, prior, x, signs, *choices)

    return jax.vmap(one)(x, jnp.arange(x.shape[0], dtype=jnp.uint32))


def _one(
    flow: Flow, prior: Callable | None, x: Array, signs: Array, tolerances: tuple, max_steps: int, adjoint: Any
) -> tuple[Array, Array]:
    """Log density of one sample and its standard error."""
    noise, probes = flow.noise, signs.shape[0]
    low, high = noise.ratio(noise.sigma_min).astype(x.dtype), noise.ratio_max().astype(x.dtype)
    first, last = noise.scales(low)[0], noise.scales(high)[0]
    run = simulate_ode(
        _Spreading(flow, signs),
        (x / first, jnp.zeros(max(probes, 1), x.dtype)),
        jnp.log(high),
        t0=jnp.log(low),
        inputs=_clock,
        solver=explicit(None),
        rtol=tolerances[0],
        atol=tolerances[1],
        max_steps=max_steps,
        adjoint=adjoint,
    )
    y, traces = run.final
    end = last * y
    at_end = prior_logdensity(noise, end) if prior is None else jnp.asarray(prior(end)).astype(x.dtype)
    if at_end.shape != ():
        raise ValueError(f"`prior` must return one number for one sample, got shape {at_end.shape}.")
    value = at_end + jnp.mean(traces) + x.size * (jnp.log(last) - jnp.log(first))
    error = jnp.std(traces, ddof=1) / math.sqrt(probes) if probes > 1 else jnp.zeros((), x.dtype)
    honest = jnp.where(run.code == int(Status.OK), 1.0, jnp.nan).astype(x.dtype)
    return value * honest, error * honest


class _Spreading(eqx.Module):
    """The flow from data to noise, and the traces of its Jacobian."""

    flow: Flow
    signs: Array

    def tendency(self, state: tuple, u: Array) -> tuple:
        y, _ = state
        k = jnp.exp(u)
        # y - D = -k^2 grad log p, without the difference.
        velocity, push = jax.linearize(lambda y: -(k**2) * self.flow.pull(y, k), y)
        if self.signs.shape[0]:
            traces = jax.vmap(lambda z: jnp.sum(z * push(z)))(self.signs)
        else:
            columns = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape)
            traces = jnp.sum(jax.vmap(lambda z: jnp.sum(z * push(z)))(columns))[None]
        return velocity, traces


def _clock(u: Array) -> Array:
    return u


def _check_reach(noise: Any, x: Array) -> None:
    """ValueError where the Gaussian at the end cannot describe the samples, because they reach beyond it."""
    if not is_known(x) or not is_known(noise.prior_deviation()) or not is_known(noise.ratio_max()):
        return
    alpha = float(noise.scales(noise.ratio_max())[0])
    reach, deviation = alpha * float(np.max(np.abs(np.asarray(x)))), float(noise.prior_deviation())
    if reach > 3 * deviation:
        raise ValueError(
            f"Samples of size {reach:.3g} do not vanish in the noise at the end, of deviation {deviation:.3g}: take a "
            "larger noise, or give the density there as `prior`."
        )
