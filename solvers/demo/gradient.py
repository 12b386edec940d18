"""Second part: the gradient of a data misfit with respect to the model, and the proof that it is one."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import plot
from ..core.verify import check_adjoint, check_gradient
from .page import Chapter, Picture, Row
from .progress import progress
from .survey import Survey, survey

PEAK = 3.0  # Hz


def gradient_and_its_proof(folder: Path, quick: bool) -> Chapter:
    """Taylor and dot-product tests of one shot in float64, and a picture of the gradient."""
    line = survey(40.0, 3, 1.4, np.float64)
    shot = line.shots[1]
    signal = line.signal(PEAK)

    def misfit_and_record(speed: Any, recorded: Any, energy: Any) -> tuple[Array, Array]:
        seen = line.record(speed, shot, signal)
        return 0.5 * jnp.sum((seen - recorded) ** 2) / energy, seen

    # One program for everything, also for the record in the true model: most of this part is compilation.
    run = jax.jit(jax.value_and_grad(misfit_and_record, has_aux=True))
    (_, recorded), _ = run(line.true, jnp.zeros((line.steps, len(line.receivers))), jnp.ones(()))
    energy = jnp.sum(recorded**2)

    z, x = np.meshgrid(*line.grid.axes(), indexing="ij")
    direction = 100.0 * np.exp(-((z - 500.0) ** 2 + (x - 1400.0) ** 2) / (2 * 150.0**2))
    start, h = jnp.asarray(line.start), 1e-3

    def misfit(speed: Any) -> Array:
        return misfit_and_record(speed, recorded, energy)[0]

    def along(h: float) -> float:
        return float(run(start + h * direction, recorded, energy)[0][0])

    with progress("gradient", 3 if quick else 4) as step:
        gradient = run(start, recorded, energy)[1]
        step("computed")
        _draw(folder / "gradient.png", line, shot, np.asarray(gradient))
        step("drawn")
        difference = (along(h) - along(-h)) / (2 * h)
        taylor = check_gradient(misfit, start, direction, gradient=gradient)
        slope, rate = taylor.slope, taylor.remainders[1].rate
        step(f"Taylor test, rate {rate:.3f}")
        rows = [
            Row("slope along a smooth change", f"{slope:.7e}", f"{difference:.7e}", f"{slope / difference - 1:+.0e}"),
            Row("Taylor rate of the gradient", f"{rate:.3f}", "2", f"{rate - 2:+.3f}"),
        ]
        if not quick:
            dot = check_adjoint(lambda speed: line.record(speed, shot, signal), start)
            rows.append(Row("dot product, relative error", f"{dot.error:.0e}", "0", f"{dot.error:.0e}"))
            step(f"dot-product test, error {dot.error:.0e}")
    return Chapter(
        "The gradient",
        "One reverse sweep gives the derivative of the misfit with respect to the speed at every node. It is the exact "
        "derivative of the discrete simulation, so it passes two tests at round-off: what it predicts agrees with what "
        "the misfit does (Taylor), and forward and reverse mode are transposes of each other (dot product).",
        rows,
        [
            Picture(
                "gradient.png",
                "Gradient of the misfit of one shot at the smooth start. Blue asks for a higher "
                "speed, red for a lower one; it lies along the paths from the source to the receivers.",
            ),
        ],
    )


def _draw(path: Path, line: Survey, shot: np.ndarray, gradient: np.ndarray) -> None:
    from matplotlib import pyplot

    gradient = np.where(line.below_water(), gradient, 0.0)
    ax = plot.snapshot(gradient, line.grid, label="d misfit / d speed (s/m)", clip=99.0)
    ax.set_title("gradient of one shot at the start")
    ax.plot(line.receivers[:, 1], line.receivers[:, 0], "v", color="0.35", markersize=3, label="receivers")
    ax.plot(shot[1], shot[0], "*", color="k", markersize=10, label="source")
    ax.legend(loc="lower right", framealpha=0.9, fontsize=8)
    ax.figure.savefig(path, dpi=110)
    pyplot.close(ax.figure)
