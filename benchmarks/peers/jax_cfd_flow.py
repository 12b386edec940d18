"""Run one flow with JAX-CFD: its spectral vorticity equation with the four-stage Crank-Nicolson scheme of its guides.

Two dimensions only.
"""

# pyright: reportMissingImports=false

import math
from importlib.metadata import version

import jax
import jax.numpy as jnp
from flow_problem import Flow, measure, read_case
from jax_cfd.base import grids
from jax_cfd.spectral import equations, time_stepping


def main(problem: Flow) -> None:
    """Time the case."""
    if problem.axes != 2:
        raise SystemExit("The spectral solver of jax-cfd has two dimensions.")
    grid = grids.Grid(problem.shape, domain=((0, 2 * math.pi),) * 2)
    equation = equations.NavierStokes2D(problem.viscosity, grid)
    step = time_stepping.crank_nicolson_rk4(equation, problem.dt)

    def final(field: jax.Array) -> jax.Array:
        modes, _ = jax.lax.scan(lambda u, _: (step(u), None), jnp.fft.rfftn(field), length=problem.steps)
        return jnp.fft.irfftn(modes)

    measure(problem, final, {"jax-cfd": version("jax-cfd"), "jax (jax-cfd)": version("jax")})


if __name__ == "__main__":
    main(read_case())
