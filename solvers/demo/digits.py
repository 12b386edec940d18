"""Part of the demo: digits out of noise, by a score that comes with the library."""

from pathlib import Path

import jax
import numpy as np

from ..evidence.digits import GUIDANCE, learned_score, opinions, rounded, scanned
from ..sampling.flow_methods import DpmSolver
from ..sampling.guidance import Labels
from ..sampling.quality import nearest_distances
from ..sampling.reverse import generate
from .page import Chapter, Picture, Row
from .progress import progress

LEVELS = 20
SHOWN = (0, 6, 9, 11, 12, 13, 14, 15, 17, 20)  # of the noise levels on the way


def digits_out_of_noise(folder: Path, quick: bool) -> Chapter:
    """Digits of each class from noise, and how they compare with scanned ones that nobody trained on."""
    with progress("digits", 2) as step:
        asked, data = np.repeat(np.arange(10), 10 if quick else 20), scanned()
        new, path = _drawn(asked)
        step("generated from noise")
        read = _share_read(new, asked), _share_read(data.held, data.held_labels)
        away = [float(np.mean(nearest_distances(x, data.train))) for x in (new, data.held)]
        _picture(folder / "digits.png", np.concatenate([new[asked == c][:20] for c in range(10)]))
        _picture(folder / "noise.png", np.concatenate([_contrast(path[asked == c][0, SHOWN]) for c in range(10)]))
        step("their pictures")
    return Chapter(
        "Digits out of noise",
        "A network of 190 thousand weights has learned the gradient of the log density of 1400 scanned digits, with "
        "noise of any strength on them (examples/15_generate_digits.py; the digits are from the UCI repository, CC BY "
        "4.0). Noise flows along it to digits of the classes that one asks for. A small classifier reads them, and "
        "the nearest training digit is as far from them as from scanned digits that were held out: not learned by "
        "heart.",
        [
            Row(
                "digits read as what was asked",
                f"{read[0]:.3f}",
                f"{read[1]:.3f} (scanned)",
                f"{read[0] - read[1]:+.3f}",
            ),
            Row(
                "distance to nearest known digit",
                f"{away[0]:.3f}",
                f"{away[1]:.3f} (scanned)",
                f"{away[0] / away[1] - 1:+.1%}",
            ),
        ],
        [
            Picture("digits.png", "Generated, a row for each class."),
            Picture("noise.png", "One of each class on its way out of the noise."),
        ],
    )


def _drawn(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A digit for each label, and its way."""
    score = learned_score()
    new, path = generate(
        score,
        score.preconditioning.noise,
        jax.random.key(3),
        shape=(len(asked), 64),
        method=DpmSolver(LEVELS),
        condition=Labels(asked, GUIDANCE),
        with_path=True,
    )
    return rounded(new).reshape(-1, 8, 8), np.asarray(path).reshape(len(asked), -1, 8, 8)


def _share_read(x: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(opinions(x).argmax(axis=1) == labels))


def _contrast(x: np.ndarray) -> np.ndarray:
    """Every image from its smallest to its largest value."""
    low, high = x.min(axis=(1, 2), keepdims=True), x.max(axis=(1, 2), keepdims=True)
    return (x - low) / (high - low)


def _picture(path: Path, images: np.ndarray) -> None:
    """Ten rows of digits, a pixel of paper between them."""
    from matplotlib import pyplot

    framed = np.pad(images, ((0, 0), (0, 1), (0, 1))).reshape(10, -1, 9, 9)
    page = np.concatenate([np.concatenate(list(row), axis=1) for row in framed])
    page = np.kron(np.pad(page, ((1, 0), (1, 0))), np.ones((5, 5)))
    pyplot.imsave(path, page, cmap="gray_r", vmin=0.0, vmax=1.0)
