"""Generate digits: learn a score from scanned ones, draw new ones of every class, and measure how good they are.

    python examples/15_generate_digits.py [large | MNIST.npz]

Minutes for scikit-learn's 1797 digits of 8 x 8 pixels (UCI, CC BY 4.0), or 25 in all for `images` (count, 28, 28) and
`labels` of a file, "large" being ../shared/data/mnist.npz. Compares new digits with some held out, training digits (the
floor) and Gaussian ones. Writes digits.png, digits.score, digits.classifier into `output`; can resume.
"""

# %% What we need
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.spatial.distance import pdist

import solvers as sv

SMALL = Path(sv.__file__).parent / "evidence/data/digits.npz"
LARGE = Path(__file__).resolve().parents[2] / "shared/data/mnist.npz"
SIZES = {  # data, number of greys, digits held out, network with its sizes, training
    "full": (SMALL, 16, 397, (sv.ScoreMlp, 64, 128, 3, 10), dict(steps=16000, learning_rate=3e-3)),
    "large": (LARGE, 255, 1000, (sv.ScoreUNet, (28, 28), 32, 2, 10, 2), dict(steps=3200, batch=64, learning_rate=2e-3)),
    "tiny": (SMALL, 16, 60, (sv.ScoreMlp, 64, 16, 1, 10), dict(steps=4, batch=8)),
}
NOISE = sv.VarianceExploding(0.02, 10.0)


# %% A small classifier: its hidden layer serves the Fréchet distance, its certainty tells digits from blots
def features(net: dict, x: jax.Array) -> jax.Array:
    """The hidden layer, for a digit (pixels) or for many of them."""
    return jax.nn.relu(x @ net["inward"] + net["threshold"])


def predict(net: dict, x: jax.Array) -> jax.Array:
    """Log probabilities of the ten classes."""
    return jax.nn.log_softmax(features(net, x) @ net["outward"] + net["bias"])


gradients = jax.jit(jax.vmap(jax.grad(lambda net, x, y: -predict(net, x)[y]), (None, 0, 0)))  # one for each digit


@jax.jit
def classifier(x: jax.Array, labels: jax.Array, keys: jax.Array) -> dict:
    """Trained by Adam, a step per key."""
    one, two = (jax.random.normal(keys[i], s) / s[0] ** 0.5 for i, s in enumerate([(x[0].size, 64), (64, 10)]))
    start, adam = dict(inward=one, threshold=jnp.zeros(64), outward=two, bias=jnp.zeros(10)), optax.adam(1e-3)

    def step(state: tuple, key: jax.Array) -> tuple:
        some = jax.random.randint(key, (200,), 0, len(x))
        slope = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients(state[0], x[some], labels[some]))
        change, moments = adam.update(slope, state[1])
        return (optax.apply_updates(state[0], change), moments), None

    return jax.lax.scan(step, (start, adam.init(start)), keys)[0][0]


# %% How good digits are, against ones held out: the kernels of the discrepancy have five widths
def quality(net: dict, x: np.ndarray, held: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Fréchet distance, discrepancy, two-sample test, share of digits that are beyond doubt, distance to known ones."""
    middle = np.median(pdist(held))
    return {
        "Fréchet": sv.frechet(features(net, x), features(net, held)),
        "MMD^2": sum(sv.mmd_squared(x, held, float(middle * np.sqrt(w / 2))) for w in (0.25, 0.5, 1.0, 2.0, 4.0)),
        "1-NN test": sv.nearest_neighbour_test(x, held),
        "sure": float(np.mean(predict(net, x).max(axis=1) > np.log(0.9))),
        "nearest": float(np.mean(sv.nearest_distances(x, train))),
    }


def main(size: str = "full", out: str | Path = "output", data: str | Path | None = None) -> dict[str, dict[str, float]]:
    """Learn, generate, measure; returns the numbers of new digits, and of others to compare them with."""
    path, greys, n, (kind, shape, *sizes), training = SIZES[size := "large" if data else size]
    file, rng = np.load(data or path), np.random.default_rng(0)
    order = rng.permutation(len(file["labels"]))
    images, labels = file["images"][order] / np.float32(greys), file["labels"].astype(np.int32)[order]
    (train, held), told, form = np.split(images.reshape(len(order), -1), [-n]), labels[:-n], np.ravel(shape).tolist()
    # %% The classifier, and which digits still have most to teach
    net = classifier(train, told, jax.random.split(jax.random.key(0), min(2000, 5 * training["steps"])))
    lengths = np.linalg.norm(gradients(net, train[:1000], told[:1000])["outward"], axis=(1, 2))
    right = np.mean(np.argmax(predict(net, held), axis=1) == labels[-n:])
    print(f"the classifier knows {right:.1%} of the digits held out; hardest are {order[np.argsort(lengths)[-5:]]}")
    # %% The score, told the classes of nine digits in ten
    (out := Path(out)).mkdir(parents=True, exist_ok=True)
    how = dict(labels=told, validation=0.0, checkpoint=out / f"digits-{size}.run", progress=True, **training)
    network, shaped, begin = kind(shape, jax.random.key(0), *sizes), train.reshape(-1, *form), time.perf_counter()
    score = sv.fit_score(network, NOISE, shaped, jax.random.key(1), **how).check().score
    sv.save(out / "digits.score", jax.tree.map(lambda x: x.astype(jnp.float16), score))
    sv.save(out / "digits.classifier", net)
    # %% New digits of every class; like the data they have whole numbers of greys
    asked, key, trained = np.arange(n) % 10, jax.random.key(2), time.perf_counter()
    new = np.asarray(sv.generate(score, NOISE, key, shape=(n, *form), condition=sv.Labels(asked, 1.4)))  # by Heun(18)
    print(f"trained in {trained - begin:.0f} s, drew them in {time.perf_counter() - trained:.1f} s")
    blots = rng.multivariate_normal(train.mean(axis=0), np.cov(train.T), n)
    new, blots = (np.float32(np.clip(np.round(greys * np.reshape(x, (n, -1))), 0, greys) / greys) for x in (new, blots))
    sets = {"new": new, "training": train[rng.permutation(len(train))[:n]], "Gaussian": blots, "held out": held}
    found = {name: quality(net, x, held, train) for name, x in sets.items()}
    found["held out"] = {name: found["held out"][name] for name in ("sure", "nearest")}
    found["new"]["as asked"] = float(np.mean(np.argmax(predict(net, new), axis=1) == asked))
    print("\n".join(f"{name:>10}: " + ", ".join(f"{k} {v:.3g}" for k, v in found[name].items()) for name in found))
    # %% The picture: a row for each class, and beside it the training digits that are nearest
    some = np.concatenate([np.flatnonzero(asked == c)[: min(10, n // 10)] for c in range(10)])
    nearest = [np.argmin(np.sum((train - x) ** 2, axis=1)) for x in new[some]]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.8), layout="constrained")
    for ax, x, title in zip(axes, (new[some], train[nearest]), ("new digits", "nearest training digits"), strict=True):
        rows = x.reshape(10, -1, *images[0].shape)
        ax.imshow(np.vstack([np.hstack(np.pad(row, 1)[1:-1]) for row in rows]), cmap="gray_r")
        ax.set(title=title, xticks=[], yticks=[])
    figure.savefig(out / "digits.png", dpi=110)
    plt.close(figure)
    return found


if __name__ == "__main__":
    main("large" if sys.argv[1:] else "full", data=next((a for a in sys.argv[1:] if a != "large"), None))
