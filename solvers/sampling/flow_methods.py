"""Generation without noise on the way: the probability flow and its fast integrators."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, is_known, whole
from ..core.ode import simulate_ode
from ..core.status import Status
from .noise import ratio_levels


class Heun(eqx.Module):
    """The probability flow dy/dk = (y - D(y, k)) / k by Heun's method. Second order; two evaluations per step.

    y = x / alpha, k = sigma / alpha, and D is the denoised mean. The levels k_i follow Karras and others; for
    rho = inf they are equally spaced in log k, for 1 in k.

    Args:
        steps: number of steps.
        rho: how much closer the levels are at the end; positive.

    Raises:
        ValueError: for fewer than one step or a rho that is not positive.

    Example:
        >>> Heun(steps=18).rho
        7.0

    Reference:
        T. Karras and others, Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022,
        algorithm 1.
    """

    steps: int = eqx.field(static=True, default=18)
    rho: float | int = eqx.field(static=True, default=7.0)

    def __check_init__(self):
        check_levels(self.steps, self.rho)

    def levels(self, noise: Any) -> dict[str, Array]:
        """Ratios before and after every step."""
        return pairs(ratio_levels(noise, self.steps, self.rho))

    def memory(self, y: Array) -> Any:
        """What is kept from step to step: nothing."""
        return None

    def advance(self, flow: Any, key: Array, y: Array, memory: Any, level: dict) -> tuple[Array, Any]:
        """One step."""
        now, then = level["now"], level["then"]
        slope = (y - flow.denoise(y, now)) / now
        guess = y + (then - now) * slope
        other = (guess - flow.denoise(guess, then)) / then
        return y + (then - now) * (slope + other) / 2, None


class Ddim(eqx.Module):
    """Denoising diffusion implicit models: y' = D + sqrt(k'^2 - s^2) (y - D) / k + s xi. One evaluation per step.

    y = x / alpha, k = sigma / alpha, s = eta k' sqrt(1 - k'^2 / k^2). For eta = 0 it is Euler's method for the
    probability flow, of first order; for eta = 1 the ancestral sampler of DDPM.

    Args:
        steps: number of steps.
        eta: how much noise is added, from 0 to 1; differentiable where it is an array. For the number 0 none is drawn.
        rho: spacing of the levels, as in `Heun`.

    Raises:
        ValueError: for fewer than one step, an eta outside [0, 1] or a rho that is not positive.

    Example:
        >>> Ddim(steps=50).steps
        50

    Reference:
        J. Song, C. Meng, S. Ermon, Denoising Diffusion Implicit Models, ICLR 2021, equations (12), (13) and (16).
    """

    steps: int = eqx.field(static=True, default=50)
    # The number zero stays one, since a method that knows of no noise need not draw it.
    eta: Any = eqx.field(converter=lambda value: value if _is_zero(value) else as_field(value, "eta", ()), default=0.0)
    rho: float | int = eqx.field(static=True, default=7.0)

    def __check_init__(self):
        check_levels(self.steps, self.rho)
        within(self.eta, "eta", 0.0, 1.0)

    def levels(self, noise: Any) -> dict[str, Array]:
        """Ratios before and after every step."""
        return pairs(ratio_levels(noise, self.steps, self.rho))

    def memory(self, y: Array) -> Any:
        """What is kept from step to step: nothing."""
        return None

    def advance(self, flow: Any, key: Array, y: Array, memory: Any, level: dict) -> tuple[Array, Any]:
        """One step."""
        now, then = level["now"], level["then"]
        mean = flow.denoise(y, now)
        if _is_zero(self.eta):
            return mean + then / now * (y - mean), None
        fresh = self.eta.astype(y.dtype) * then * jnp.sqrt((now - then) * (now + then)) / now
        kept = jnp.sqrt((then - fresh) * (then + fresh))
        return mean + kept / now * (y - mean) + fresh * white(key, y), None


class DpmSolver(eqx.Module):
    """DPM-Solver++(2M): the probability flow by a multistep exponential integrator. Second order, one evaluation each.

        y' = e^-h y + (1 - e^-h) [D_i + (D_i - D_(i-1)) h / (2 h_before)],        h = log(k / k')

    y = x / alpha, k = sigma / alpha. The first step is of first order. The cheapest of the methods at few evaluations.

    Args:
        steps: number of steps.
        rho: spacing of the levels, as in `Heun`; by default equal in log k.

    Raises:
        ValueError: for fewer than one step or a rho that is not positive.

    Example:
        >>> DpmSolver(steps=20).rho
        inf

    Reference:
        C. Lu and others, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, Mach.
        Intell. Res. 22 (2025) 730 (arXiv 2211.01095), algorithm 2.
    """

    steps: int = eqx.field(static=True, default=20)
    rho: float | int = eqx.field(static=True, default=math.inf)

    def __check_init__(self):
        check_levels(self.steps, self.rho)

    def levels(self, noise: Any) -> dict[str, Array]:
        """Ratios before and after every step, and how far the step before reached compared with this one."""
        levels = pairs(ratio_levels(noise, self.steps, self.rho))
        h = jnp.log(levels["now"] / levels["then"])
        # There is no step before the first one: no weight for what it would have seen.
        weight = jnp.concatenate([jnp.zeros_like(h[:1]), h[1:] / (2 * h[:-1])])
        return {**levels, "weight": weight}

    def memory(self, y: Array) -> Any:
        """What is kept from step to step: the last denoised mean."""
        return jnp.zeros_like(y)

    def advance(self, flow: Any, key: Array, y: Array, memory: Array, level: dict) -> tuple[Array, Any]:
        """One step."""
        mean = flow.denoise(y, level["now"])
        ahead = mean + level["weight"] * (mean - memory)
        return ahead + (level["then"] / level["now"]) * (y - ahead), mean


class ProbabilityFlow(eqx.Module):
    """The probability flow dy/dt = D(y, k) - y, k = e^-t, by an adaptive solver of diffrax.

    The most accurate map from noise to samples. A sample whose solve fails becomes NaN.

    Args:
        rtol: relative error per step; by default 1e-7 in double and 1e-4 in single precision.
        atol: absolute error per step, in the unit of the data; by default `rtol`.
        max_steps: most steps that are tried.
        solver: a diffrax solver; by default `diffrax.Tsit5()`.
        adjoint: a diffrax adjoint, as for `simulate_ode`; the default is for reverse mode, `diffrax.ForwardMode()` is
            for forward mode.

    Raises:
        ValueError: for tolerances or a number of steps that cannot be.

    Example:
        >>> ProbabilityFlow(rtol=1e-5).max_steps
        4096

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021, equation (13).
    """

    rtol: float | int | None = eqx.field(static=True, default=None)
    atol: float | int | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=4096)
    solver: Any = None
    adjoint: Any = None

    def __check_init__(self):
        whole(self.max_steps, "max_steps")
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise TypeError(f"`{name}` must be a number or None, got {value!r}.")
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value!r}.")

    def solve(self, flow: Any, y: Array) -> tuple[Array, Array]:
        """The end of the flow from y, and whether it was reached."""
        high, low = flow.noise.ratio_max().astype(y.dtype), flow.noise.ratio(flow.noise.sigma_min).astype(y.dtype)
        run = simulate_ode(
            _Falling(flow),
            y,
            -jnp.log(low),
            t0=-jnp.log(high),
            inputs=_clock,
            solver=explicit(self.solver),
            rtol=self.rtol,
            atol=self.atol,
            max_steps=self.max_steps,
            adjoint=self.adjoint,
        )
        return run.final, run.code == int(Status.OK)


class _Falling(eqx.Module):
    flow: Any

    def tendency(self, y: Array, t: Array) -> Array:
        return self.flow.denoise(y, jnp.exp(-t)) - y


def _clock(t: Array) -> Array:
    return t


def explicit(solver: Any) -> Any:
    """The solver, by default one for problems that are not stiff."""
    import diffrax

    return diffrax.Tsit5() if solver is None else solver


# ---- What the methods of generation share ----


def pairs(levels: Array) -> dict[str, Array]:
    """The levels before and after every step."""
    return {"now": levels[:-1], "then": levels[1:]}


def white(key: Array, y: Array) -> Array:
    """Standard normal numbers like y."""
    return jax.random.normal(key, y.shape, y.dtype)


def _is_zero(value: Any) -> bool:
    """True for a number that is zero for good, unlike an array."""
    return is_number(value) and value == 0


def is_number(value: Any) -> bool:
    """True for real Python and NumPy numbers, which may be static."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_levels(steps: Any, rho: Any) -> None:
    """ValueError unless there is a step and rho is positive."""
    whole(steps, "steps")
    if not is_number(rho):
        raise TypeError(f"`rho` must be a number, or math.inf, got {rho!r}.")
    if not rho > 0:
        raise ValueError(f"`rho` must be positive, or math.inf, got {rho!r}.")


def within(value: Any, name: str, least: float, most: float) -> None:
    """ValueError unless a number, where known, lies between two others."""
    if is_known(value) and not least <= float(value) <= most:
        raise ValueError(f"`{name}` must lie between {least:g} and {most:g}, got {float(value):g}.")
