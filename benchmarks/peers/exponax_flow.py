"""Run one flow with Exponax: its ETDRK2 steppers in Fourier space, which is its fastest way, under one scan.

Its vorticity has the opposite sign.
"""

# pyright: reportMissingImports=false

import math
from importlib.metadata import version

import exponax as ex
import jax
import jax.numpy as jnp
from flow_problem import Flow, measure, read_case


def main(problem: Flow) -> None:
    """Time the case."""
    make = ex.stepper.NavierStokesVorticity if problem.axes == 2 else ex.stepper.NavierStokesVelocity
    stepper = make(problem.axes, 2 * math.pi, problem.nodes, problem.dt, diffusivity=problem.viscosity, order=2)

    def final(field: jax.Array) -> jax.Array:
        state = -field[None] if problem.axes == 2 else field
        modes = ex.fft(state, num_spatial_dims=problem.axes)
        modes, _ = jax.lax.scan(lambda u, _: (stepper.step_fourier(u), None), modes, length=problem.steps)
        end = ex.ifft(modes, num_spatial_dims=problem.axes, num_points=problem.nodes)
        return -end[0] if problem.axes == 2 else jnp.asarray(end)

    measure(problem, final, {"exponax": version("exponax"), "jax (exponax)": version("jax")})


if __name__ == "__main__":
    main(read_case())
