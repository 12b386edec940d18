"""Run one case with Diffrax. See `generate_problem.py` for the case and the answer.

In the time t = -log sigma, in which equal steps suit both the flow and the diffusion and a Brownian tree need not be
deep: the flow is dy/dt = sigma^2 score, the diffusion dy = 2 sigma^2 score dt + sqrt(2) sigma dW. Samples are mapped
over by `vmap`, each with a tree of its own.
"""

# pyright: reportMissingImports=false

import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from generate_problem import LARGEST, SMALLEST, Case, answer, read_case
from generate_runs import Build, Draw, run

FIRST, LAST = -math.log(LARGEST), -math.log(SMALLEST)
RHO = 7.0


def flow(solver: Any, stages: int, levels: bool = False) -> Build:
    """The probability flow in equal steps, or with Karras's levels in sigma."""

    def build(score: Callable, count: int) -> Draw:
        steps = count // stages

        def velocity(t: Any, y: Any, args: Any) -> Any:
            sigma = t if levels else jnp.exp(-t)
            return (-sigma if levels else sigma**2) * score(y, sigma)

        at = np.linspace(LARGEST ** (1 / RHO), SMALLEST ** (1 / RHO), steps + 1) ** RHO
        first, last = (at[0], at[-1]) if levels else (FIRST, LAST)
        controller = diffrax.StepTo(ts=jnp.asarray(at)) if levels else diffrax.ConstantStepSize()
        first_step = None if levels else (LAST - FIRST) / steps

        def one(start: Any) -> Any:
            found = diffrax.diffeqsolve(
                diffrax.ODETerm(velocity), solver, first, last, first_step, start,
                stepsize_controller=controller, max_steps=steps + 1,
            )  # fmt: skip
            return found.ys[-1]

        return jax.jit(lambda starts, key: jax.vmap(one)(starts))

    return build


def adaptive(score: Callable, count: int) -> Draw:
    """The probability flow by Tsit5 in adaptive steps."""
    tolerance = 1e-3 * (24 / count) ** 5

    def one(start: Any) -> Any:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: jnp.exp(-2 * t) * score(y, jnp.exp(-t))),
            diffrax.Tsit5(), FIRST, LAST, None, start,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance), max_steps=4096,
        )  # fmt: skip
        return found.ys[-1]

    return jax.jit(lambda starts, key: jax.vmap(one)(starts))


def diffusion(solver: Any, stages: int, area: Any = diffrax.BrownianIncrement, tree: bool = True) -> Build:
    """The reverse diffusion in equal steps."""

    def build(score: Callable, count: int) -> Draw:
        steps = count // stages
        step = (LAST - FIRST) / steps

        def drift(t: Any, y: Any, args: Any) -> Any:
            return 2 * jnp.exp(-2 * t) * score(y, jnp.exp(-t))

        def spread(t: Any, y: Any, args: Any) -> Any:
            return lx.DiagonalLinearOperator(jnp.full_like(y, math.sqrt(2.0)) * jnp.exp(-t))

        def one(shape: Any, dtype: Any, key: Any) -> Any:
            first, second = jax.random.split(key)
            like = jax.ShapeDtypeStruct(shape, dtype)
            if tree:
                path = diffrax.VirtualBrownianTree(FIRST, LAST, tol=step / 2, shape=like, key=first, levy_area=area)
            else:
                path = diffrax.UnsafeBrownianPath(shape=like, key=first, levy_area=area)
            adjoint = diffrax.RecursiveCheckpointAdjoint() if tree else diffrax.ForwardMode()
            found = diffrax.diffeqsolve(
                diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(spread, path)), solver, FIRST, LAST, step,
                LARGEST * jax.random.normal(second, shape, dtype), max_steps=steps + 1, adjoint=adjoint,
            )  # fmt: skip
            return found.ys[-1]

        def draw(starts: Any, key: Any) -> Any:
            keys = jax.random.split(key, starts.shape[0])
            return jax.vmap(lambda key: one(starts.shape[1:], starts.dtype, key))(keys)

        return jax.jit(draw)

    return build


def methods(case: Case) -> dict[str, Build]:
    """Methods by name."""
    if case.kind == "flow":
        return {
            "Tsit5": flow(diffrax.Tsit5(), 6),
            "Heun": flow(diffrax.Heun(), 2),
            "Heun, rho = 7": flow(diffrax.Heun(), 2, levels=True),
            "Tsit5, adaptive": adaptive,
        }
    return {
        "Euler, tree": diffusion(diffrax.Euler(), 1),
        "Heun, tree": diffusion(diffrax.Heun(), 2),
        "ShARK, tree": diffusion(diffrax.ShARK(), 2, diffrax.SpaceTimeLevyArea),
        "Euler, path not repeatable": diffusion(diffrax.Euler(), 1, tree=False),
    }


def main() -> None:
    """One case."""
    case = read_case()
    jax.config.update("jax_enable_x64", case.kind == "flow")
    answer(run(case, methods(case)), {name: version(name) for name in ("diffrax", "jax")})


if __name__ == "__main__":
    main()
