"""How good generated samples are: distances between two sets of samples, and tests that tell them apart.

All functions take samples with a leading axis, of any shape behind it, and work on the host in double precision, a few
hundred rows at a time. A distance means little alone: print beside it that of two halves of the data (the floor) and
that of a simple model, such as a Gaussian with the moments of the data.
"""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checks import whole
from .flow import Watched

ROWS = 256


def mmd_squared(x: Any, y: Any, width: float | int | None = None) -> float:
    """Squared maximum mean discrepancy with a Gaussian kernel, unbiased: zero on average for equal laws.

        E k(x, x') + E k(y, y') - 2 E k(x, y),        k(a, b) = exp(-|a - b|^2 / (2 width^2))

    Args:
        x: samples.
        y: other samples of the same shape.
        width: of the kernel; by default the median distance between samples of y.

    Returns:
        The estimate; small negative values are as usual as positive ones where the laws are equal.

    Raises:
        ValueError: for samples that do not fit or are not finite, or a width that is not positive.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
        >>> abs(mmd_squared(x, y)) < 0.01 < mmd_squared(x, y + 1)
        True

    Reference:
        A. Gretton and others, J. Mach. Learn. Res. 13 (2012) 723, equation (3).
    """
    x, y = _pair(x, y)
    if width is None:
        # A thousand samples tell the median well enough.
        some = np.sqrt(_squares(y[:1000], y[:1000]))
        width = float(np.median(some[np.triu_indices(len(some), 1)]))
    if not width > 0:
        raise ValueError(f"`width` must be positive, got {width!r}; the samples may be all the same.")

    def kernel(squares: np.ndarray) -> np.ndarray:
        return np.exp(squares / (-2 * width**2))

    return float(_within(x, kernel) + _within(y, kernel) - 2 * _between(x, y, kernel))


def energy_distance(x: Any, y: Any) -> float:
    """Energy distance, unbiased: 2 E|x - y| - E|x - x'| - E|y - y'|. Zero for equal laws; has no parameter.

    Args:
        x: samples.
        y: other samples of the same shape.

    Raises:
        ValueError: for samples that do not fit or are not finite.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
        >>> abs(energy_distance(x, y)) < 0.02 < energy_distance(x, y + 1)
        True

    Reference:
        G. J. Székely, M. L. Rizzo, J. Stat. Plan. Inference 143 (2013) 1249, section 2.
    """
    x, y = _pair(x, y)
    return float(2 * _between(x, y, np.sqrt) - _within(x, np.sqrt) - _within(y, np.sqrt))


def sliced_wasserstein(x: Any, y: Any, key: Array, projections: int = 200) -> float:
    """Sliced Wasserstein distance of order 2: root mean square, over random lines, of the distance on the line.

    On a line the optimal transport pairs quantiles, so that it is exact for the samples at hand, of any two numbers.
    Of finite samples of one law it is positive, not zero.

    Args:
        x: samples.
        y: other samples of the same shape.
        key: random key of the directions.
        projections: number of lines.

    Raises:
        ValueError: for samples that do not fit or are not finite, or no line.

    Example:
        >>> import jax, numpy as np
        >>> x = np.zeros((10, 2)); y = np.ones((30, 2))
        >>> abs(sliced_wasserstein(x, y, jax.random.key(0), 2000) - 1.0) < 0.05      # |y - x| / sqrt(d)
        True

    Reference:
        N. Bonneel, J. Rabin, G. Peyré, H. Pfister, J. Math. Imaging Vis. 51 (2015) 22.
    """
    x, y = _pair(x, y)
    lines = np.asarray(jax.random.normal(key, (x.shape[1], whole(projections, "projections"))), float)
    lines = lines / np.linalg.norm(lines, axis=0)
    # Both quantile functions are constant between the breaks of either.
    breaks = np.unique(np.concatenate([np.arange(len(z) + 1) / len(z) for z in (x, y)]))
    middle, length = (breaks[1:] + breaks[:-1]) / 2, np.diff(breaks)
    along = [np.sort(z @ lines, axis=0)[(middle * len(z)).astype(int)] for z in (x, y)]
    return float(np.sqrt(np.mean(length @ (along[0] - along[1]) ** 2)))


def kernel_stein(score: Callable, x: Any, width: float | int = 1.0) -> float:
    """Squared kernel Stein discrepancy between samples and a score, unbiased: needs no samples of the law itself.

        E [ s(x)^T s(x') k + s(x)^T grad_x' k + s(x')^T grad_x k + tr grad_x grad_x' k ],
        k = (width^2 + |x - x'|^2)^(-1/2)

    Zero on average if the samples are from the law with that score. Blind to the weights of modes that are far apart,
    as all that only sees a score is.

    Args:
        score: gradient of the log density of one sample; for a score model `lambda x: score(x, noise.sigma_min)`.
        x: samples.
        width: length scale of the kernel, in the unit of the samples.

    Raises:
        ValueError: for samples that are not finite, a width that is not positive, a score of another shape.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (500, 2))
        >>> abs(kernel_stein(lambda x: -x, x)) < 0.05 < kernel_stein(lambda x: -x, x + 1)
        True

    Reference:
        J. Gorham, L. Mackey, ICML 2017, equation (3) and theorem 8 (this kernel); Q. Liu, J. Lee, M. Jordan, ICML 2016.
    """
    flat, given = _samples(x, "x"), jnp.asarray(x)
    if not width > 0:
        raise ValueError(f"`width` must be positive, got {width!r}.")
    slopes = _scores(Watched(score, fingerprint(score)), given)
    if slopes.shape != given.shape:
        raise ValueError(f"`score` must return the shape of one sample, {given.shape[1:]}, got {slopes.shape[1:]}.")
    s, d, total = np.asarray(slopes, float).reshape(flat.shape), flat.shape[1], 0.0
    own = np.sum(s * flat, axis=1)
    for rows in _rows(len(flat)):
        r2 = _squares(flat[rows], flat)
        c = width**2 + r2
        # grad_x k = -(x - x') c^(-3/2), tr grad_x grad_x' k = d c^(-3/2) - 3 r^2 c^(-5/2).
        toward = (own[rows, None] - s[rows] @ flat.T) + (own[None] - flat[rows] @ s.T)
        values = (s[rows] @ s.T) * c**-0.5 + toward * c**-1.5 + d * c**-1.5 - 3 * r2 * c**-2.5
        total += values.sum() - np.sum(values[np.arange(len(values)), rows])
    return float(total / (len(flat) * (len(flat) - 1)))


def nearest_neighbour_test(x: Any, y: Any) -> float:
    """Share of samples whose nearest neighbour is of their own set: 1/2 for equal laws, 1 for sets far apart.

    A classifier two-sample test without training. Below 1/2 where the samples repeat the other set's. The sets should
    be equally large; of the larger one the first ones are taken.

    Args:
        x: samples.
        y: other samples of the same shape.

    Raises:
        ValueError: for samples that do not fit or are not finite.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).normal(size=(2, 400, 2))
        >>> abs(nearest_neighbour_test(x, y) - 0.5) < 0.1, nearest_neighbour_test(x, y + 9)
        (True, 1.0)

    Reference:
        D. Lopez-Paz, M. Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017.
    """
    x, y = _pair(x, y)
    count = min(len(x), len(y))
    both, right = np.concatenate([x[:count], y[:count]]), 0
    for rows in _rows(2 * count):
        squares = _squares(both[rows], both)
        squares[np.arange(len(squares)), rows] = np.inf
        right += int(np.sum((np.argmin(squares, axis=1) < count) == (rows < count)))
    return right / (2 * count)


def nearest_distances(x: Any, data: Any) -> np.ndarray:
    """Distance of every sample to the nearest of the data: near zero where a generator has learned them by heart.

    Compare its mean with that of data held out.

    Args:
        x: samples.
        data: data of training.

    Returns:
        Distances, shape (samples,).

    Raises:
        ValueError: for samples that do not fit or are not finite.

    Example:
        >>> import numpy as np
        >>> nearest_distances(np.array([[0.0], [2.5]]), np.array([[0.0], [1.0], [3.0]])).tolist()
        [0.0, 0.5]
    """
    x, data = _samples(x, "x"), _samples(data, "data")
    _same_width(x, data)
    return np.concatenate([np.sqrt(np.min(_squares(x[rows], data), axis=1)) for rows in _rows(len(x))])


def frechet(x: Any, y: Any, features: Callable | None = None) -> float:
    """Squared Fréchet distance between Gaussians with the moments of two sets of samples, or of their features.

        |m - m'|^2 + tr(S + S' - 2 (S^(1/2) S' S^(1/2))^(1/2))

    With the features of an image classifier it is known as FID. It grows as samples get fewer, so that only values for
    equal numbers can be compared, and the numbers should exceed the number of features.

    Args:
        x: samples.
        y: other samples of the same shape.
        features: function from one sample to a vector, such as the last hidden layer of a classifier; by default the
            sample itself.

    Raises:
        ValueError: for samples that do not fit or are not finite, or fewer than two.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(frechet(x, x + 2.0), 6)
        12.0

    Reference:
        D. C. Dowson, B. V. Landau, J. Multivar. Anal. 12 (1982) 450; M. Heusel and others, NeurIPS 2017.
    """
    if features is not None:
        x, y = (_scores(Watched(features, fingerprint(features)), jnp.asarray(z)) for z in (x, y))
    x, y = _pair(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError("A covariance needs at least two samples.")
    first, second = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y))
    values, axes = np.linalg.eigh(first)
    root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
    cross = np.linalg.eigvalsh(root @ second @ root)
    gap = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    return float(gap + np.trace(first) + np.trace(second) - 2 * np.sum(np.sqrt(np.maximum(cross, 0))))


@eqx.filter_jit
def _scores(score: Callable, x: Array) -> Array:
    """A function of one sample on all of them."""
    return jax.vmap(lambda x: score(x))(x)


def _rows(count: int) -> Iterator[np.ndarray]:
    return (np.arange(i, min(i + ROWS, count)) for i in range(0, count, ROWS))


def _squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs."""
    # About the mean, because |x|^2 - 2 x y + |y|^2 cancels far from the origin.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    squares = np.sum(x**2, axis=1)[:, None] - 2 * x @ y.T + np.sum(y**2, axis=1)
    return np.maximum(squares, 0.0)


def _within(x: np.ndarray, function: Callable) -> float:
    """Mean of a function of squared distances over all pairs of different samples."""
    # The distance of a sample to itself is exactly zero, up to the round-off that is taken away with it.
    total = 0.0
    for rows in _rows(len(x)):
        values = function(_squares(x[rows], x))
        total += values.sum() - np.sum(values[np.arange(len(values)), rows])
    return total / (len(x) * (len(x) - 1))


def _between(x: np.ndarray, y: np.ndarray, function: Callable) -> float:
    return sum(float(function(_squares(x[rows], y)).sum()) for rows in _rows(len(x))) / (len(x) * len(y))


# ---- Checks ----


def _samples(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x, float)
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(f"`{name}` needs a leading axis of at least two samples, got shape {x.shape}.")
    if not np.all(np.isfinite(x)):
        raise ValueError(f"`{name}` has {int(np.sum(~np.isfinite(x)))} of {x.size} values that are not finite.")
    return x.reshape(len(x), -1)


def _pair(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(x)[1:] != np.shape(y)[1:]:
        raise ValueError(f"Samples of both sets must have the same shape, got {np.shape(x)[1:]} and {np.shape(y)[1:]}.")
    return _samples(x, "x"), _samples(y, "y")


def _same_width(x: np.ndarray, data: np.ndarray) -> None:
    if x.shape[1] != data.shape[1]:
        raise ValueError(f"Samples and data must have the same shape, got {x.shape[1]} and {data.shape[1]} numbers.")
