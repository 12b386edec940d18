"""Your own equation in ten lines: spirals of the complex Ginzburg-Landau equation, and its coefficient from a picture.

    python examples/08_your_own_equation.py

A `Semilinear` equation needs the symbol of its linear part, a function for the rest, and the coefficients. It is then
marched, differentiated and planned like any other. Writes spirals.png into the folder `output`.
"""

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {"full": dict(nodes=128, length=100.0, steps=1000), "tiny": dict(nodes=24, length=20.0, steps=20)}


# %% The equation, A_t = A + (1 + i b) lap A - (1 + i c) |A|^2 A
def symbol(d: sv.Symbols, p: dict) -> jax.Array:
    return 1 + (1 + 1j * p["b"]) * d.laplacian


def reaction(a: jax.Array, d: sv.Symbols, p: dict) -> jax.Array:
    field = d.field(a)
    return -(1 + 1j * p["c"]) * d.modes(jnp.abs(field) ** 2 * field)


def ginzburg_landau(grid: sv.Grid, b: float, c: float) -> sv.Semilinear:
    return sv.Semilinear(grid, symbol, reaction, {"b": b, "c": c}, real=False)


def main(size: str = "full", out: str | Path = "output") -> float:
    """Spirals, and c found again from two of their states; returns what was found."""
    return spirals(**SIZES[size], out=Path(out))


def spirals(nodes: int, length: float, steps: int, out: Path, c: float = 1.2) -> float:
    """The whole story on nodes x nodes points."""
    out.mkdir(parents=True, exist_ok=True)
    grid = sv.Grid(shape=(nodes, nodes), spacing=length / nodes)

    # %% March from small random waves
    keys = jax.random.split(jax.random.key(2))
    start = sum(z * sv.random_field(grid, key, 0.8, rms=0.3) for z, key in zip((1, 1j), keys, strict=True))
    run = sv.simulate(ginzburg_landau(grid, 0.0, c), start, steps=steps, dt=0.1).check()

    # %% Two states a little apart tell the coefficient: Newton's method, with both derivatives through the run
    later = sv.simulate(ginzburg_landau(grid, 0.0, c), run.final, steps=10, dt=0.1).final

    @jax.jit
    def derivatives(guess: jax.Array) -> tuple[jax.Array, jax.Array]:
        def misfit(guess: jax.Array) -> jax.Array:
            again = sv.simulate(ginzburg_landau(grid, 0.0, guess), run.final, steps=10, dt=0.1).final
            return jnp.mean(jnp.abs(again - later) ** 2)

        slope = jax.grad(misfit)
        return slope(guess), jax.jvp(slope, (guess,), (jnp.ones_like(guess),))[1]

    guess = jnp.asarray(1.0)
    for _ in range(5):
        slope, curvature = derivatives(guess)
        guess = guess - slope / curvature
    print(f"c = {float(guess):.5f}, true {c}")

    # %% Picture: the phase turns around the cores of the spirals, where the size falls to zero
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained")
    field, extent = np.asarray(run.final).T, (0, length, 0, length)
    size = left.imshow(np.abs(field), extent=extent, origin="lower", cmap="viridis")
    figure.colorbar(size, ax=left, label="|A|")
    phase = right.imshow(np.angle(field), extent=extent, origin="lower", cmap="twilight", vmin=-np.pi, vmax=np.pi)
    figure.colorbar(phase, ax=right, label="phase")
    figure.suptitle(f"complex Ginzburg-Landau equation, b = 0, c = {c}; found c = {float(guess):.4f}")
    figure.savefig(out / "spirals.png", dpi=110)
    plt.close(figure)
    return float(guess)


if __name__ == "__main__":
    main()
