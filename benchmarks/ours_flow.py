"""Run one flow with solvers. See `peers/flow_problem.py` for the case and the answer.

python benchmarks/ours_flow.py CASE STEPPER            # time it
python benchmarks/ours_flow.py CASE truth FILE         # write a reference: fourth order, four times the steps
"""

import math
import sys
from dataclasses import replace
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from peers.flow_problem import Flow, measure, read_case

import solvers as sv


def final(problem: Flow, field: jax.Array, stepper: str, finer: int = 1) -> jax.Array:
    """The field at the end."""
    grid = sv.Grid(problem.shape, 2 * math.pi / problem.nodes)
    flow = sv.PeriodicNavierStokes(grid, problem.viscosity, stepper=stepper)
    start = flow.from_vorticity(field) if problem.axes == 2 else flow.from_velocity(field)
    run = sv.simulate(flow, start, steps=finer * problem.steps, dt=problem.dt / finer, adjoint=sv.StoreAll())
    return flow.vorticity(run.final) if problem.axes == 2 else flow.velocity(run.final)


def main(problem: Flow, stepper: str) -> None:
    """Time the case."""
    versions = {"solvers": sv.__version__, "jax": version("jax"), "jaxlib": version("jaxlib")}
    measure(problem, lambda field: final(problem, field, stepper), versions)


def truth(problem: Flow, file: str) -> None:
    """Write the reference in double precision; in the plane on twice the nodes, so that no code's cut is in it."""
    jax.config.update("jax_enable_x64", True)
    more = 2 if problem.axes == 2 else 1
    fine = replace(problem, nodes=more * problem.nodes, time_step=problem.dt)
    field = jnp.asarray(fine.initial().astype(np.float64))
    end = np.asarray(jax.jit(lambda field: final(fine, field, "etdrk4", finer=4))(field))
    np.save(file, end[::more, ::more] if problem.axes == 2 else end)


if __name__ == "__main__":
    if sys.argv[2] == "truth":
        truth(read_case(), sys.argv[3])
    else:
        main(read_case(), sys.argv[2])
