"""The exact likelihood of a score model: against a closed form, with an error bar, differentiated, and put to use.

    python examples/17_exact_likelihood.py

The score of a mixture of Gaussians is known at every noise level, so that the log density by the probability flow has a
truth to be held against; a trained score is used in the same way. Writes likelihood.png into the folder `output`.
"""

# %% What we need
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import solvers as sv

SIZES = {"full": dict(nodes=40, d=100, samples=100), "tiny": dict(nodes=6, d=34, samples=8)}
NOISE = sv.VarianceExploding(sigma_min=0.05, sigma_max=30.0)
KEY = jax.random.key(0)


def model(weights: jax.Array) -> sv.MixtureScore:
    """Three Gaussians in the plane."""
    means = jnp.array([[-2.0, 0.0], [2.0, 1.5], [1.5, -2.0]])
    covariances = jnp.array([[[0.3, 0.2], [0.2, 0.6]], [[0.5, -0.3], [-0.3, 0.4]], [[0.7, 0.0], [0.0, 0.1]]])
    return sv.MixtureScore(means, covariances, NOISE, weights)


def flow_logp(score: sv.MixtureScore, x: jax.Array, rtol: float = 1e-8) -> jax.Array:
    """Log densities by the flow, from the exact density at the largest noise level."""
    return sv.log_likelihood(score, NOISE, x, KEY, prior=lambda end: score.logdensity(end, NOISE.sigma_max), rtol=rtol)


def main(size: str = "full", out: str | Path = "output") -> dict[str, float]:
    """Three uses of a likelihood; returns the errors."""
    choice, weights = SIZES[size], jnp.array([0.5, 0.3, 0.2])
    with jax.enable_x64(True):
        score = model(weights)

        # %% In the plane the trace is exact: the flow's log density against the closed form, on a grid and elsewhere
        line, count = jnp.linspace(-4.5, 4.5, choice["nodes"]), choice["samples"]
        grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
        data, more = score.draw(jax.random.key(1), count), score.draw(jax.random.key(2), 4 * count)
        strange = 4.5 * (2 * jax.random.uniform(jax.random.key(3), (count, 2)) - 1)
        x = jnp.concatenate([grid, data, more, strange])
        truth = np.asarray(jax.vmap(lambda x: score.logdensity(x, NOISE.sigma_min))(x))
        found = np.asarray(flow_logp(score, x))
        errors = {"plane": float(np.abs(found - truth).max())}
        print(f"log p in the plane: largest error {errors['plane']:.1e} over {len(x)} points")
        on_grid, of_data, of_more, of_strange = np.split(found, np.cumsum([len(grid), count, 4 * count]))

        # %% An outlier detector: what is less likely than all but 1 % of the data
        threshold = np.quantile(of_more, 0.01)
        caught, alarms = of_strange < threshold, np.mean(of_data < threshold)
        print(f"points thrown anywhere: {caught.mean():.0%} are caught, with {alarms:.0%} false alarms")

        # %% A derivative: how the mean log likelihood of data depends on the weights
        slope = jax.grad(lambda w: jnp.mean(flow_logp(model(w), data, 1e-7)))(weights)
        exact = jax.grad(lambda w: jnp.mean(jax.vmap(lambda x: model(w).logdensity(x, NOISE.sigma_min))(data)))(weights)
        errors["derivative"] = float(jnp.abs(slope - exact).max())
        print(f"d mean log p / d weights {np.round(slope, 4)}, largest error {errors['derivative']:.1e}")

        # %% In many dimensions random signs estimate the trace, and tell their standard error
        d = choice["d"]
        factor = 0.5 * jax.random.normal(jax.random.key(4), (d, d)) / d**0.5
        wide = sv.MixtureScore(jnp.zeros(d), jnp.eye(d) + factor @ factor.T, NOISE)
        many = wide.draw(jax.random.key(5), count)
        estimate, error = sv.log_likelihood(
            wide, NOISE, many, KEY, prior=lambda x: wide.logdensity(x, NOISE.sigma_max), with_error=True, rtol=1e-5
        )
        right = np.asarray(jax.vmap(lambda x: wide.logdensity(x, NOISE.sigma_min))(many))
        away, error = np.asarray(estimate) - right, np.asarray(error)
        share = np.mean(np.abs(away) < 2 * error)
        print(f"in {d} dimensions: {share:.0%} within two standard errors, on average {error.mean():.2f}")

    # %% Pictures
    figure = Figure(figsize=(12, 3.7), layout="compressed")
    axes = figure.subplots(1, 3)
    square, levels = (choice["nodes"],) * 2, np.arange(-14.0, 0.0, 2.0)
    closed = truth[: len(grid)].reshape(square)
    image = axes[0].contourf(line, line, on_grid.reshape(square), 24, cmap="viridis")
    axes[0].contour(line, line, closed, levels, colors="w", linewidths=0.7, linestyles="--")
    figure.colorbar(image, ax=axes[0], label="log p")
    axes[0].set(title="by the flow; closed form dashed", aspect="equal")
    axes[1].errorbar(right, away, 2 * error, fmt=".", elinewidth=0.8, markersize=4)
    axes[1].axhline(0.0, color="0.3", linewidth=1)
    axes[1].set(xlabel="log p", ylabel="estimate - log p", title=f"{d}-D: two standard errors")
    sv.plot.points(data, ax=axes[2], limits=((-4.5, 4.5), (-4.5, 4.5)), size=12)
    line, strange = np.asarray(line), np.asarray(strange)
    for what, colour in ((caught, "C3"), (~caught, "C2")):
        axes[2].scatter(*strange[what].T, s=14, color=colour, marker="x", linewidths=1)
    axes[2].contour(line, line, closed, [threshold], colors="k", linewidths=1)
    axes[2].set_title("caught (red), missed (green), data (grey)")
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "likelihood.png", dpi=110)
    assert errors["plane"] < 1e-5 and errors["derivative"] < 1e-4
    return errors


if __name__ == "__main__":
    main()
