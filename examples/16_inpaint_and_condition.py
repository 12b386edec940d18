"""Condition samples: by class, by known pixels, by coarse and noisy measurements, each beside the exact answer.

    python examples/16_inpaint_and_condition.py

The prior is a Gaussian per printed digit, turned, scaled and shifted at random: its score is known at every level,
and so is every conditional law. Within a digit samples nearly follow it. Writes output/conditions.png.
"""

# %% What we need
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from scipy import ndimage

import solvers as sv

SIZES = {
    "full": dict(side=14, classes=10, count=400, draws=64, steps=32),
    "tiny": dict(side=6, classes=3, count=40, draws=8, steps=4),
}
NOISE = sv.VarianceExploding(sigma_min=0.02, sigma_max=20.0)


# %% The data: printed digits, each turned, scaled and shifted at random
def printed(digit: int, side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Images of one digit between -1 and 1, shape (count, side, side)."""
    fine = 4 * side
    outlines = TextPath((0.0, 0.0), str(digit), size=1.2).to_polygons()
    at = np.stack(np.meshgrid(np.linspace(-0.12, 0.88, fine), np.linspace(0.94, -0.06, fine)), axis=-1).reshape(-1, 2)
    # A hole is an outline within an outline.
    inside = np.logical_xor.reduce([Outline(o).contains_points(at) for o in outlines]).reshape(fine, fine)
    soft, images = ndimage.gaussian_filter(inside.astype(float), 0.45 * fine / side), []
    for _ in range(count):
        angle, scale = 0.12 * rng.normal(), np.exp(0.08 * rng.normal(size=2)) * fine / side
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
        offset = fine / 2 - turn @ np.full(2, (side - 1) / 2) + 0.03 * fine * rng.normal(size=2)
        images.append(2 * ndimage.affine_transform(soft, turn, offset, (side, side), order=1) - 1)
    return np.stack(images)


# %% The truth: what is known of such a prior given linear measurements
def exact(means: jax.Array, covariances: jax.Array, a: jax.Array, data: jax.Array, deviation: float) -> tuple:
    """Weights, means and deviations of the modes given data = A x + e."""
    gaps, noisy = data - means @ a.T, a @ covariances @ a.T + deviation**2 * jnp.eye(len(data))
    gain = jnp.linalg.solve(noisy, a @ covariances)
    logs = -0.5 * jnp.einsum("ji,ji->j", gaps, jnp.linalg.solve(noisy, gaps[..., None])[..., 0])
    weights = jax.nn.softmax(logs - 0.5 * jnp.linalg.slogdet(noisy)[1])
    centres = means + jnp.einsum("jmd,jm->jd", gain, gaps)
    variances = jnp.diagonal(covariances, axis1=1, axis2=2) - jnp.sum(gain * (a @ covariances), axis=1)
    return weights, centres, jnp.sqrt(variances)


def main(size: str = "full", out: str | Path = "output") -> None:
    """Draw under three kinds of conditions, beside the exact answers."""
    (side, classes, count, draws, steps), rng = SIZES[size].values(), np.random.default_rng(0)
    images = np.stack([printed(digit, side, count, rng) for digit in range(classes)])
    # %% The prior: the score of a mixture of Gaussians, with and without a label
    means = jnp.asarray(images.mean(axis=1).reshape(classes, -1))
    covariances = jnp.asarray(np.stack([np.cov(x.reshape(count, -1).T) + 1e-3 * np.eye(side**2) for x in images]))
    mixture = sv.MixtureScore(means, covariances, NOISE)

    def score(x: jax.Array, sigma: jax.Array, label: jax.Array | int = -1) -> jax.Array:
        logs = jnp.where((label < 0) | (jnp.arange(classes) == label), mixture.log_weights, -jnp.inf)
        return eqx.tree_at(lambda m: m.log_weights, mixture, logs)(x, sigma)

    def generate(number: int, count: int, condition: Any) -> jax.Array:
        key, method = jax.random.key(number), sv.DpmSolver(steps)
        return sv.generate(score, NOISE, key, shape=(count, side, side), method=method, condition=condition)

    def compare(what: str, found: Any, unknown: Any, weights: Any, centres: Any, deviations: Any) -> None:
        x, best = found.reshape(draws, -1), np.argmax(weights)
        mine = np.argmin(np.linalg.norm(x[:, None] - centres, axis=2), axis=1) == best
        gap = ((x[mine].mean(axis=0) - centres[best]) / deviations[best])[unknown]
        print(f"{what}: {mine.mean():.2f} of the samples are a {best}, and {weights[best]:.2f} should be;")
        print(
            f"  their mean is off by {(gap**2).mean() ** 0.5:.2f} deviations, {float(mine.sum()) ** -0.5:.2f} by chance"
        )

    # %% Classes: as they are, and exaggerated by guidance
    by_class = [generate(0, classes, sv.Labels(jnp.arange(classes), guidance=w)) for w in (1.0, 3.0)]

    # %% Inpainting: the lower half of a digit is known
    truth = jnp.asarray(images[min(3, classes - 1), 0])
    mask = np.arange(side)[:, None] >= side // 2 + np.zeros((1, side), int)
    filled = generate(1, draws, sv.Inpaint(truth, mask))
    half = exact(means, covariances, jnp.eye(side**2)[mask.ravel()], truth[mask], float(NOISE.sigma_min))
    compare("inpainting", filled, ~mask.ravel(), *half)

    # %% A linear inverse problem: means over squares of 2 x 2, with noise
    means_of_squares = jnp.asarray(np.kron(*[np.kron(np.eye(side // 2), [[0.5, 0.5]])] * 2), truth.dtype)
    seen = means_of_squares @ truth.ravel() + 0.3 * jnp.asarray(rng.normal(size=side**2 // 4), truth.dtype)
    sharpened = generate(2, draws, sv.LinearInverse(lambda x: means_of_squares @ x.ravel(), seen, 0.3))
    answer = exact(means, covariances, means_of_squares, seen, 0.3)
    compare("inverse problem", sharpened, np.full(side**2, True), *answer)

    # %% Pictures
    exact_means = [(told[0] @ told[1]).reshape(side, side) for told in (half, answer)]
    known, coarse = jnp.where(mask, truth, -1.0), (4 * means_of_squares.T @ seen).reshape(side, side)
    rows = {
        "a sample of each class": by_class[0],
        "the same, guidance 3": by_class[1],
        "truth, the half that is known, samples, exact mean": [truth, known, *filled[:7], exact_means[0]],
        "truth, what is seen, samples, exact mean": [truth, coarse, *sharpened[:7], exact_means[1]],
    }
    figure = Figure(figsize=(8, 4.4), layout="compressed")
    for ax, (title, row) in zip(figure.subplots(len(rows)), rows.items(), strict=True):
        sv.plot.images(np.stack(row), ax=ax, columns=len(row), limits=(-1, 1), cmap="gray_r").set_title(title)
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "conditions.png", dpi=110)


if __name__ == "__main__":
    main()
