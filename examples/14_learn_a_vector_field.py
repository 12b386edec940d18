"""Learn a vector field, the gradient of the log density of a Swiss roll at every noise level, and let points follow it.

    python examples/14_learn_a_vector_field.py

Trains a small network for about a minute, prints how far its samples are from the data, and writes swiss_roll.png into
the folder `output`: the learned field over noisy data at three levels, and how noise becomes samples.
"""

# %% What we need
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import solvers as sv

SIZES = {
    "full": dict(count=20_000, width=128, depth=2, steps=6000, batch=256, draws=2000),
    "tiny": dict(count=500, width=16, depth=1, steps=40, batch=64, draws=200),
}
LIMITS = ((-2.4, 2.8), (-2.55, 2.65))
LEVELS = (1.0, 0.4, 0.12)


# %% The data: a spiral of one and a half turns, a little blurred; they are all that is known
def swiss_roll(key: jax.Array, count: int) -> jax.Array:
    """Samples in the plane, shape (count, 2)."""
    first, second = jax.random.split(key)
    angle = jnp.pi * (1.5 + 3 * jnp.sqrt(jax.random.uniform(first, (count, 1))))
    spiral = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1) * angle / (2 * jnp.pi)
    return spiral + 0.03 * jax.random.normal(second, (count, 2))


def along(x: jax.Array) -> np.ndarray:
    """How far along the roll a point lies: the angle of its nearest point."""
    angle = np.linspace(1.5 * np.pi, 4.5 * np.pi, 600)
    roll = np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / (2 * np.pi)
    return angle[np.argmin(np.linalg.norm(np.asarray(x)[:, None] - roll, axis=2), axis=1)]


# %% The picture: the field over data with noise of three sizes, and the way from noise to samples
def draw(score: Callable, data: jax.Array, path: jax.Array, draws: jax.Array, key: jax.Array, file: str | Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(13.2, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    some = data[:2500]
    for ax, sigma in zip(axes, LEVELS, strict=False):
        noisy = some + sigma * jax.random.normal(key, some.shape)
        sv.plot.points(noisy, ax=ax, limits=LIMITS, values=along(some), size=4)
        sv.plot.vector_field(score, sigma, LIMITS, ax=ax, nodes=18, cmap=None)
        ax.set_title(f"learned field, noise {sigma:g}")
    sv.plot.points(some, ax=axes[3], limits=LIMITS, size=1)
    sv.plot.trajectories(path[:250], values=along(draws[:250]), limits=LIMITS, ax=axes[3], width=1.2)
    axes[3].set_title("noise follows it and becomes samples")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color("0.8")
    figure.savefig(file, dpi=110)


def main(size: str = "full", out: str | Path = "output") -> dict[str, float]:
    """Train, draw, judge, and show; returns the distances of the samples and of fresh data from the data."""
    choice, keys = SIZES[size], jax.random.split(jax.random.key(0), 6)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    data = swiss_roll(keys[0], choice["count"])

    # %% Learn by denoising: noise of every size is added to the data, and the network guesses it
    noise = sv.VarianceExploding(sigma_min=0.01, sigma_max=10.0)
    network = sv.ScoreMlp(2, keys[1], width=choice["width"], depth=choice["depth"])
    fit = sv.fit_score(
        network, noise, data, keys[2], choice["steps"], batch=choice["batch"], progress=size == "full"
    ).check()
    print(f"loss {fit.loss[0]:.3f} -> {fit.loss[-1]:.3f}, on data held out {fit.validation[-1]:.3f}")

    # %% Generate: noise flows along the field, from the largest level to the smallest
    shape = (choice["draws"], 2)
    draws, path = sv.generate(fit.score, noise, keys[3], shape=shape, method=sv.Heun(40), with_path=True)
    langevin = sv.generate(fit.score, noise, keys[3], shape=shape, method=sv.AnnealedLangevin(levels=20, steps=20))

    # %% Judge: beside the distance of fresh data, which is the best that can be had
    fresh = swiss_roll(keys[4], choice["draws"])
    told = {"fresh data": fresh, "flow": draws, "annealed Langevin": langevin}
    distances = {name: sv.energy_distance(x, fresh if x is not fresh else data[: len(x)]) for name, x in told.items()}
    print("energy distance to data: " + ", ".join(f"{name} {d:.5f}" for name, d in distances.items()))

    draw(fit.score, data, path, draws, keys[5], out / "swiss_roll.png")
    return distances


if __name__ == "__main__":
    main()
