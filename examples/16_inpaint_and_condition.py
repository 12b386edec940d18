"""Condition samples: by class, by known pixels, by coarse and noisy measurements, each beside the exact answer.

    python examples/16_inpaint_and_condition.py

The prior is a Gaussian per digit, fitted to printed digits that are turned, scaled and shifted at random: its score is
known at every noise level, and so is every conditional law. A trained score is used in the same way. Prints how far the
samples are from the exact answers, and writes conditions.png into the folder `output`.
"""

# %% What we need
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
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


# %% The prior: the score of a mixture, with and without a label, and the exact law given linear measurements
def prior(images: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Means and covariances of the classes, images (classes, count, side, side)."""
    flat = images.reshape(*images.shape[:2], -1)
    covariances = np.stack([np.cov(x.T) + 1e-3 * np.eye(x.shape[1]) for x in flat])
    return jnp.asarray(flat.mean(axis=1)), jnp.asarray(covariances)


def exact(means: jax.Array, covariances: jax.Array, a: jax.Array, data: jax.Array, deviation: float) -> tuple:
    """Weights, mean and deviation of the mixture given data = A x + e."""
    gaps, noisy = data - means @ a.T, a @ covariances @ a.T + deviation**2 * jnp.eye(len(data))
    gain = jnp.linalg.solve(noisy, a @ covariances)
    logs = -0.5 * jnp.einsum("ji,ji->j", gaps, jnp.linalg.solve(noisy, gaps[..., None])[..., 0])
    weights = jax.nn.softmax(logs - 0.5 * jnp.linalg.slogdet(noisy)[1])
    centres = means + jnp.einsum("jmd,jm->jd", gain, gaps)
    inner = jax.vmap(jnp.diag)(covariances - jnp.einsum("jmd,jme->jde", gain, a @ covariances))
    mean = weights @ centres
    return weights, mean, jnp.sqrt(weights @ (inner + (centres - mean) ** 2))


def main(size: str = "full", out: str | Path = "output") -> dict[str, float]:
    """Draw under three kinds of conditions; returns the errors of the mean images, in exact standard deviations."""
    (side, classes, count, draws, steps), rng = SIZES[size].values(), np.random.default_rng(0)
    images = np.stack([printed(digit, side, count, rng) for digit in range(classes)])
    means, covariances = prior(images)
    mixture = sv.MixtureScore(means, covariances, NOISE)

    def score(x: jax.Array, sigma: jax.Array, label: jax.Array | int = -1) -> jax.Array:
        logs = jnp.where((label < 0) | (jnp.arange(classes) == label), mixture.log_weights, -jnp.inf)
        return eqx.tree_at(lambda m: m.log_weights, mixture, logs)(x, sigma)

    def generate(number: int, count: int, condition: object) -> jax.Array:
        key, method = jax.random.key(number), sv.DpmSolver(steps)
        return sv.generate(score, NOISE, key, shape=(count, side, side), method=method, condition=condition)

    def compare(what: str, found: jax.Array, answer: tuple, unknown: np.ndarray) -> float:
        gap = (found.reshape(draws, -1).mean(axis=0) - answer[1])[unknown] / answer[2][unknown]
        error, likely = float(jnp.sqrt(jnp.mean(gap**2))), [f"{j} ({answer[0][j]:.2f})" for j in np.argsort(-answer[0])]
        print(f"{what}: mean image off by {error:.2f} deviations, {draws**-0.5:.2f} by chance; {', '.join(likely[:3])}")
        return error

    # %% Classes: as they are, and exaggerated by guidance
    labels = jnp.arange(2 * classes) % classes
    by_class = {w: generate(0, len(labels), sv.Labels(labels, guidance=w)) for w in (1.0, 3.0)}

    # %% Inpainting: the lower half of a digit is known
    truth, eye = jnp.asarray(images[min(3, classes - 1), 0]), jnp.eye(side * side)
    mask = np.arange(side)[:, None] >= side // 2 + np.zeros((1, side), int)
    filled = generate(1, draws, sv.Inpaint(truth, jnp.asarray(mask)))
    given_half = exact(means, covariances, eye[mask.ravel()], truth[mask], float(NOISE.sigma_min))
    errors = {"inpainting": compare("inpainting", filled, given_half, ~mask.ravel())}

    # %% A linear inverse problem: means over squares of 2 x 2, with noise
    def coarse(x: jax.Array) -> jax.Array:
        return x.reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3))

    seen = coarse(truth) + 0.3 * jnp.asarray(rng.normal(size=(side // 2, side // 2)), truth.dtype)
    sharpened = generate(2, draws, sv.LinearInverse(coarse, seen, 0.3))
    a = jax.vmap(lambda x: coarse(x.reshape(side, side)).ravel(), out_axes=1)(eye)
    answer = exact(means, covariances, a, seen.ravel(), 0.3)
    errors["inverse problem"] = compare("inverse problem", sharpened, answer, np.full(side * side, True))

    # %% Pictures
    figure, axes = plt.subplots(4, 1, figsize=(8, 5.2), layout="compressed")
    titles = ["classes", "classes, guidance 3", "lower half known: truth, what is known, samples, exact mean",
              "coarse and noisy: truth, what is seen, samples, exact mean"]  # fmt: skip
    known = jnp.where(jnp.asarray(mask), truth, -1.0)
    blown = jnp.repeat(jnp.repeat(seen, 2, axis=0), 2, axis=1)
    rows = [by_class[1.0][:classes], by_class[3.0][:classes]]
    rows += [jnp.stack([truth, k, *x[:7], e[1].reshape(side, side)])
             for k, x, e in ((known, filled, given_half), (blown, sharpened, answer))]  # fmt: skip
    for ax, title, row in zip(axes, titles, rows, strict=True):
        sv.plot.images(row, ax=ax, columns=len(row), limits=(-1, 1), cmap="gray_r").set_title(title)
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "conditions.png", dpi=110)
    plt.close(figure)
    return errors


if __name__ == "__main__":
    main()
