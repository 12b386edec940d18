"""Differentiate through waves: the gradient of a data misfit, and how to know that it is right.

    python examples/02_differentiate_waves.py

Two tests need no reference solution. The Taylor test asks whether the gradient predicts what the misfit does: after
taking off the slope h <g, d>, what is left must fall like h^2. The dot-product test asks whether forward and reverse
mode are transposes, <J v, w> = <v, J^T w>. The first finds a wrong derivative, the second a wrong transpose, to
round-off. Writes gradient.png into the folder `output`.
"""

# %% Round-off shows in these tests, so they run in double precision
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {"full": dict(shape=(61, 121), steps=420), "tiny": dict(shape=(24, 32), steps=60)}
SPACING = 20.0  # m


def main(size: str = "full", out: str | Path = "output") -> tuple:
    """Gradient, both reports; returns the reports."""
    with jax.enable_x64(True):
        return differentiate(SIZES[size]["shape"], SIZES[size]["steps"], Path(out))


def differentiate(shape: tuple[int, int], steps: int, out: Path) -> tuple:
    """The whole story on a grid of a given shape."""
    out.mkdir(parents=True, exist_ok=True)

    # %% The truth has a slow disc that the background lacks
    grid = sv.Grid(shape=shape, spacing=SPACING)
    z, x = np.meshgrid(*grid.axes(), indexing="ij")
    depth, width = (last for _, last in grid.extent)
    background = 1800.0 + 0.5 * z
    disc = np.exp(-((z - 0.5 * depth) ** 2 + (x - 0.5 * width) ** 2) / (2 * (0.12 * depth) ** 2))
    truth = background - 200.0 * disc

    # %% What one shot records, as a function of the speed
    shot = np.array([[0.1 * depth, 0.3 * width]])
    receivers = np.stack([np.full(31, 0.9 * depth), np.linspace(0.0, width, 31)], axis=1)
    dt = 0.9 * sv.Wave(grid, 1.05 * background).max_dt()
    signal = sv.ricker(6.0, steps=steps, dt=dt)

    def record(speed: jax.Array) -> jax.Array:
        wave = sv.Wave(grid, speed, sources=shot)
        observe = wave.receivers(receivers)
        return sv.simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal, observe=observe).observed

    recorded = record(truth)

    def misfit(speed: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((record(speed) - recorded) ** 2) / jnp.sum(recorded**2)

    # %% The gradient: one forward and one reverse sweep, whatever the number of nodes
    value, gradient = jax.jit(jax.value_and_grad(misfit))(jnp.asarray(background))
    print(f"misfit {float(value):.4f}, {gradient.size} derivatives")

    # %% Does it predict what the misfit does along the disc? R1 must fall with rate 2
    taylor = sv.check_gradient(misfit, jnp.asarray(background), -200.0 * disc, gradient=gradient)
    print(taylor.check())

    # %% Is reverse mode the transpose of forward mode?
    dot = sv.check_adjoint(record, jnp.asarray(background))
    print(dot.check())

    # %% Picture: where the misfit asks for another speed, and how the remainders fall
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(1.6, 1))
    sv.plot.snapshot(gradient, grid, ax=left, label="d misfit / d speed (s/m)", clip=99.0)
    left.plot(shot[:, 1], shot[:, 0], "k*", markersize=10)
    left.plot(receivers[:, 1], receivers[:, 0], "v", color="0.3", markersize=4)
    left.contour(x, z, disc, levels=[0.5], colors="k", linewidths=1, linestyles="--")
    left.set_title("gradient; dashed: the disc that it looks for")
    for name, remainder in zip(("without gradient, R0", "with gradient, R1"), taylor.remainders, strict=False):
        right.loglog(taylor.steps, remainder.values, "o-", markersize=4, label=f"{name}: rate {remainder.rate:.2f}")
    right.set_xlabel("step h along the disc")
    right.set_ylabel("what Taylor's formula leaves over")
    right.legend()
    right.grid(alpha=0.3)
    figure.savefig(out / "gradient.png", dpi=120)
    plt.close(figure)
    return taylor, dot


if __name__ == "__main__":
    main()
