"""Digits from a score that comes with the library, measured against scanned ones that it was not trained on.

`data/digits.score` and `data/digits.classifier` are what `examples/15_generate_digits.py` writes, `data/digits.npz` the
images of scikit-learn's `load_digits`; `data/digits.md` says where they come from. The measures are those of the
example: 397 digits, rounded to the greys of the data, against the 397 held out; Fréchet distance on the hidden layer of
a classifier; discrepancy summed over five widths of the kernel. One set of digits is generated, and measured by all.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..sampling.flow_methods import Heun
from ..sampling.guidance import Labels
from ..sampling.model_file import load
from ..sampling.networks import ScoreMlp
from ..sampling.quality import frechet, mmd_squared, nearest_distances, nearest_neighbour_test
from ..sampling.reverse import generate
from .record import Evidence, Row

FOLDER = Path(__file__).with_name("data")
HELD, GREYS, GUIDANCE = 397, 16, 1.4
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # squares, in squared median distances
SMALL = np.float32(1 / GREYS)


class Digits(NamedTuple):
    """Images (count, 8, 8) between 0 and 1, and their labels, of training and held out."""

    train: np.ndarray
    train_labels: np.ndarray
    held: np.ndarray
    held_labels: np.ndarray


@functools.cache
def scanned() -> Digits:
    """The 1797 scanned digits, in the order and the parts of the example."""
    with np.load(FOLDER / "digits.npz", allow_pickle=False) as file:
        images, labels = file["images"] * SMALL, file["labels"].astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order], labels[order]
    return Digits(images[:-HELD], labels[:-HELD], images[-HELD:], labels[-HELD:])


def learned_score() -> Any:
    """The score, in single precision; its noise is `.preconditioning.noise`."""
    shape = eqx.filter_eval_shape(ScoreMlp, 64, jax.random.key(0), 128, 3, classes=10)
    network = load(FOLDER / "digits.score", shape)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if isinstance(x, jax.Array) else x, network)


@functools.cache
def classifier() -> dict[str, jax.Array]:
    """Weights of the classifier."""
    shapes = {"inward": (64, 64), "threshold": (64,), "outward": (64, 10), "bias": (10,)}
    return load(FOLDER / "digits.classifier", {name: jnp.zeros(shape) for name, shape in shapes.items()})


def features(x: Any) -> np.ndarray:
    """The hidden layer of the classifier for each digit."""
    net = classifier()
    return np.maximum(np.reshape(x, (len(x), -1)) @ np.asarray(net["inward"]) + np.asarray(net["threshold"]), 0.0)


def opinions(x: Any) -> np.ndarray:
    """Probabilities of the ten classes for each digit."""
    net = classifier()
    return np.asarray(jax.nn.softmax(features(x) @ net["outward"] + net["bias"], axis=1))


def rounded(x: Any) -> np.ndarray:
    """Digits with the greys that the data have."""
    return np.clip(np.round(GREYS * np.asarray(x, float)), 0, GREYS) / GREYS


def new_digits(key: jax.Array, labels: np.ndarray, method: Any) -> np.ndarray:
    """A generated digit for each label."""
    score = learned_score()
    noise = score.preconditioning.noise
    flat = generate(score, noise, key, shape=(len(labels), 64), method=method, condition=Labels(labels, GUIDANCE))
    return rounded(flat).reshape(-1, 8, 8)


@functools.cache
def _made() -> np.ndarray:
    return new_digits(jax.random.key(2), np.arange(HELD) % 10, Heun(18))


def frechet_distance() -> Evidence:
    """Squared Fréchet distance on the features; the reference is that of training digits."""
    data = scanned()
    target, known = features(data.held), features(data.train[:HELD])
    ours = frechet(features(_made()), target)
    return Evidence(ours, frechet(known, target), ours, 1.0)


def discrepancy() -> Evidence:
    """Squared maximum mean discrepancy; the reference is that of training digits."""
    data = scanned()
    ours = squared_discrepancy(_made(), data.held)
    return Evidence(ours, squared_discrepancy(data.train[:HELD], data.held), ours, 0.01)


def two_samples() -> Evidence:
    """Share of digits whose nearest neighbour is of their own kind; 1/2 if new ones cannot be told from scanned."""
    ours = nearest_neighbour_test(_made(), scanned().held)
    return Evidence(ours, 0.5, abs(ours - 0.5), 0.12)


def confidence() -> Evidence:
    """Share of digits to which the classifier gives one class with more than 0.9; reference: the ones held out."""
    ours, held = (float(np.mean(opinions(x).max(axis=1) > 0.9)) for x in (_made(), scanned().held))
    return Evidence(ours, held, 1 - ours, 0.15)


def novelty() -> Evidence:
    """Mean distance to the nearest training digit, relative to that of the ones held out: not learned by heart."""
    data = scanned()
    ours, held = (float(np.mean(nearest_distances(x, data.train))) for x in (_made(), data.held))
    return Evidence(ours, held, abs(ours / held - 1), 0.1)


def squared_discrepancy(x: Any, y: Any) -> float:
    """Sum of the discrepancies over five widths of the kernel."""
    from scipy.spatial.distance import pdist

    middle = float(np.median(pdist(np.reshape(y, (len(y), -1)))))
    return sum(mmd_squared(x, y, middle * float(np.sqrt(w / 2))) for w in WIDTHS)


ROWS = (
    Row("digits.frechet", "Fréchet distance of digits", "training digits", frechet_distance),
    Row("digits.mmd", "MMD^2 of digits", "training digits", discrepancy),
    Row("digits.neighbours", "1-NN two-sample test of digits", "theory", two_samples),
    Row("digits.confidence", "digits beyond doubt, share lacking", "digits held out", confidence),
    Row("digits.novelty", "distance to known digits, relative", "digits held out", novelty),
)
