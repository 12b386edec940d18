"""The exact likelihood of a score model: against a closed form, with an error bar, differentiated, and put to use.

    python examples/17_exact_likelihood.py

The score of a mixture of Gaussians is known at every noise level, so that the log density by the probability flow has a
truth to be held against; a trained score is used in the same way. Writes likelihood.png into the folder `output`.
"""

# %% What we need
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

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
    """Four uses of a likelihood; returns the errors."""
    choice, weights = SIZES[size], jnp.array([0.5, 0.3, 0.2])
    with jax.enable_x64(True):
        score = model(weights)

        # %% In the plane the trace is exact: the flow's log density against the closed form
        line = jnp.linspace(-4.5, 4.5, choice["nodes"])
        x = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
        truth = jax.vmap(lambda x: score.logdensity(x, NOISE.sigma_min))(x)
        found = flow_logp(score, x)
        errors = {"plane": float(jnp.abs(found - truth).max())}
        print(f"log p in the plane: largest error {errors['plane']:.1e} over {len(x)} points")

        # %% Without that density the Gaussian of the noise stands in: what it costs
        plain = sv.log_likelihood(score, NOISE, x, KEY, rtol=1e-8)
        errors["Gaussian at the end"] = float(jnp.abs(plain - truth).max())
        print(f"with the Gaussian of the noise at the end: {errors['Gaussian at the end']:.1e}")

        # %% A derivative: how the mean log likelihood of data depends on the weights
        data = score.draw(jax.random.key(1), choice["samples"])
        slope = jax.grad(lambda w: jnp.mean(flow_logp(model(w), data, 1e-7)))(weights)
        exact = jax.grad(lambda w: jnp.mean(jax.vmap(lambda x: model(w).logdensity(x, NOISE.sigma_min))(data)))(weights)
        errors["derivative"] = float(jnp.abs(slope - exact).max())
        print(f"d mean log p / d weights {np.round(slope, 4)}, largest error {errors['derivative']:.1e}")

        # %% In many dimensions random signs estimate the trace, and tell their standard error
        d = choice["d"]
        factor = 0.5 * jax.random.normal(jax.random.key(2), (d, d)) / d**0.5
        wide = sv.MixtureScore(jnp.zeros(d), jnp.eye(d) + factor @ factor.T, NOISE)
        many = wide.draw(jax.random.key(3), choice["samples"])
        estimate, error = sv.log_likelihood(
            wide, NOISE, many, KEY, prior=lambda x: wide.logdensity(x, NOISE.sigma_max), with_error=True, rtol=1e-5
        )
        right = jax.vmap(lambda x: wide.logdensity(x, NOISE.sigma_min))(many)
        share = float(jnp.mean(jnp.abs(estimate - right) < 2 * error))
        print(f"in {d} dimensions: {share:.0%} within two standard errors, on average {float(error.mean()):.2f}")

        # %% An outlier detector: what is less likely than all but 1 % of the data
        threshold = float(jnp.quantile(flow_logp(score, score.draw(jax.random.key(4), 4 * choice["samples"])), 0.01))
        strange = 4.5 * (2 * jax.random.uniform(jax.random.key(5), (choice["samples"], 2)) - 1)
        caught = flow_logp(score, strange) < threshold
        false = float(jnp.mean(flow_logp(score, data) < threshold))
        print(f"points thrown anywhere: {float(caught.mean()):.0%} are caught, with {false:.0%} false alarms")

    # %% Pictures
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.7), layout="compressed")
    square, levels = (choice["nodes"],) * 2, np.arange(-14.0, 0.0, 2.0)
    image = axes[0].contourf(line, line, found.reshape(square), 24, cmap="viridis")
    axes[0].contour(line, line, truth.reshape(square), levels, colors="w", linewidths=0.7, linestyles="--")
    figure.colorbar(image, ax=axes[0], label="log p")
    axes[0].set(title="by the flow; closed form dashed", aspect="equal")
    axes[1].errorbar(right, estimate - right, 2 * error, fmt=".", elinewidth=0.8, markersize=4)
    axes[1].axhline(0.0, color="0.3", linewidth=1)
    axes[1].set(xlabel="log p", ylabel="estimate - log p", title=f"{d}-D: two standard errors")
    sv.plot.points(data, ax=axes[2], limits=((-4.5, 4.5), (-4.5, 4.5)), size=12)
    for what, colour in ((caught, "C3"), (~caught, "C2")):
        axes[2].scatter(*np.asarray(strange[what]).T, s=14, color=colour, marker="x", linewidths=1)
    axes[2].contour(line, line, truth.reshape(square), [threshold], colors="k", linewidths=1)
    axes[2].set_title("caught (red), missed (green), data (grey)")
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "likelihood.png", dpi=110)
    plt.close(figure)
    assert errors["plane"] < 1e-5 and errors["derivative"] < 1e-4
    return errors


if __name__ == "__main__":
    main()
