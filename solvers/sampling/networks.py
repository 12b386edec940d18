"""Networks for scores: a perceptron for vectors, a small convolutional one for images, both told the noise level.

Both are preconditioned. With y = x / alpha, the ratio k = sigma / alpha, and mean m and standard deviation s of the
data, the network F sees (y - m) / (k^2 + s^2)^(1/2), a thing of variance one at every level, and the score is

    score(x, sigma) = [ s F / (k^2 + s^2)^(1/2) - k (y - m) / (k^2 + s^2) ] / sigma,

so that F = 0, where training starts, is the exact score of N(m, s^2), and no small level asks for a difference of large
numbers. This is the form of Karras and others (NeurIPS 2022, section 5), written for the score of any noise.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.checks import whole
from .noise import VarianceExploding

FREQUENCIES = np.linspace(0.25, 4.0, 16)  # of the features of log(k / s) / 4, per unit


class Conditioning(eqx.Module):
    """What a network is told beside the sample: noise level and label, as a vector of features."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    classes: Array | None  # a row per class, the first for no class

    def __init__(self, width: int, classes: int, key: Array):
        one, two, three = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(2 * FREQUENCIES.size, width, key=one)
        self.second = eqx.nn.Linear(width, width, key=two)
        self.classes = jax.random.normal(three, (classes + 1, width)) if classes else None

    def __call__(self, level: Array, label: Any) -> Array:
        phase = 2 * math.pi * level * jnp.asarray(FREQUENCIES, level.dtype)
        told = self.first(jnp.concatenate([jnp.cos(phase), jnp.sin(phase)]))
        if self.classes is not None:
            told = told + self.classes[jnp.asarray(label) + 1].astype(told.dtype)
        return jax.nn.silu(self.second(jax.nn.silu(told)))


class Preconditioning(eqx.Module):
    """Noise, mean and standard deviation of the data; no parameters of training."""

    noise: Any
    mean: Array
    spread: Array

    def __call__(self, inner: Any, x: Array, sigma: Any, label: Any) -> Array:
        """The score of one sample by the network `inner(z, level, label)`."""
        fixed = lax.stop_gradient(self)
        sigma = jnp.asarray(sigma, x.dtype)
        k = fixed.noise.ratio(sigma)
        away = x * (k / sigma) - fixed.mean.astype(x.dtype)
        s = fixed.spread.astype(x.dtype)
        size = jnp.sqrt(k**2 + s**2)
        value = inner(away / size, jnp.log(k / s) / 4, label)
        return (s / size * value.astype(x.dtype) - k / size * (away / size)) / sigma


class ScoreMlp(eqx.Module):
    """A residual multilayer perceptron for scores of vectors: score(x, sigma) or score(x, sigma, label).

    `fit_score` tells it the noise and the mean and standard deviation of the data, by `bound`. Before, it is made for
    `VarianceExploding` and standardised data.

    Args:
        dimensions: length d of a sample.
        key: random key of the initial weights.
        width: width of the hidden layers.
        depth: number of residual blocks.
        classes: number of classes; labels are 0 .. classes - 1, and -1 for none.

    Raises:
        ValueError: for sizes below one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> network = ScoreMlp(2, jax.random.key(0), width=16, depth=1)
        >>> network(jnp.array([1.0, -1.0]), 1.0).tolist()                 # untrained: that of N(0, 1) + N(0, 1)
        [-0.5, 0.5]
    """

    inward: eqx.nn.Linear
    blocks: list
    outward: eqx.nn.Linear
    conditioning: Conditioning
    preconditioning: Preconditioning

    def __init__(self, dimensions: int, key: Array, width: int = 128, depth: int = 3, classes: int = 0):
        d, width, depth = whole(dimensions, "dimensions"), whole(width, "width"), whole(depth, "depth")
        classes = whole(classes, "classes", least=0)
        keys = jax.random.split(key, depth + 3)
        self.inward = eqx.nn.Linear(d, width, key=keys[0])
        self.outward = _silent(eqx.nn.Linear(width, d, key=keys[1]))
        self.conditioning = Conditioning(width, classes, keys[2])
        self.blocks = [_Dense(width, k) for k in keys[3:]]
        self.preconditioning = Preconditioning(VarianceExploding(), jnp.zeros(()), jnp.ones(()))

    def bound(self, noise: Any, mean: Array, spread: Array) -> "ScoreMlp":
        """The same network for another noise and other data."""
        return eqx.tree_at(lambda n: n.preconditioning, self, Preconditioning(noise, mean, spread))

    def __call__(self, x: Array, sigma: Any, label: Any = -1) -> Array:
        """The score of one sample."""
        return self.preconditioning(self._inner, x, sigma, label)

    def _inner(self, z: Array, level: Array, label: Any) -> Array:
        if z.shape != (self.inward.in_features,):
            raise ValueError(f"This ScoreMlp is for samples of shape ({self.inward.in_features},), got {z.shape}.")
        told = self.conditioning(level, label)
        h = self.inward(z)
        for block in self.blocks:
            h = block(h, told)
        return self.outward(jax.nn.silu(h))


class ScoreUNet(eqx.Module):
    """A small convolutional network for scores of images, with connections across equal resolutions.

    Residual blocks of two 3x3 convolutions, one on the way down and one on the way up per resolution, widths doubling
    at the first halving; made to be trained on a CPU. Samples have the shape (rows, columns) or (channels, rows,
    columns). `fit_score` tells it the noise and the mean and standard deviation of the data, by `bound`.

    Args:
        shape: shape of one image; rows and columns divisible by 2^(resolutions - 1).
        key: random key of the initial weights.
        width: channels at the finest resolution, a multiple of 8.
        resolutions: number of resolutions, each half of the one before.
        classes: number of classes; labels are 0 .. classes - 1, and -1 for none.

    Raises:
        ValueError: for a shape that cannot be halved so often, or sizes that do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> network = ScoreUNet((8, 8), jax.random.key(0), width=8, resolutions=2)
        >>> network(jnp.ones((8, 8)), 1.0).shape
        (8, 8)

    Reference:
        O. Ronneberger, P. Fischer, T. Brox, MICCAI 2015; J. Ho, A. Jain, P. Abbeel, NeurIPS 2020, appendix B.
    """

    inward: eqx.nn.Conv2d
    down: list
    middle: Any
    up: list
    norm: eqx.nn.GroupNorm
    outward: eqx.nn.Conv2d
    conditioning: Conditioning
    preconditioning: Preconditioning

    def __init__(self, shape: tuple[int, ...], key: Array, width: int = 32, resolutions: int = 2, classes: int = 0):
        width, resolutions = whole(width, "width"), whole(resolutions, "resolutions")
        classes = whole(classes, "classes", least=0)
        if len(shape) not in (2, 3) or any(n % 2 ** (resolutions - 1) for n in shape[-2:]):
            raise ValueError(
                "`shape` must be (rows, columns) or (channels, rows, columns) with rows and columns divisible by "
                f"{2 ** (resolutions - 1)} for {resolutions} resolutions, got {tuple(shape)}."
            )
        if width % 8:
            raise ValueError(f"`width` must be a multiple of 8, got {width}.")
        channels = shape[0] if len(shape) == 3 else 1
        widths = [width] + [2 * width] * (resolutions - 1)
        keys = iter(jax.random.split(key, 2 * resolutions + 5))
        told = 2 * width
        self.conditioning = Conditioning(told, classes, next(keys))
        self.inward = eqx.nn.Conv2d(channels, width, 3, padding=1, key=next(keys))
        before = [width, *widths[:-1]]
        self.down = [_Block(a, b, told, next(keys)) for a, b in zip(before, widths, strict=True)]
        self.middle = _Block(widths[-1], widths[-1], told, next(keys))
        self.up = [
            _Block(a + b, b, told, next(keys)) for a, b in zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True)
        ]
        self.norm = eqx.nn.GroupNorm(8, width)
        self.outward = _silent(eqx.nn.Conv2d(width, channels, 3, padding=1, key=next(keys)))
        self.preconditioning = Preconditioning(VarianceExploding(), jnp.zeros(()), jnp.ones(()))

    def bound(self, noise: Any, mean: Array, spread: Array) -> "ScoreUNet":
        """The same network for another noise and other data."""
        return eqx.tree_at(lambda n: n.preconditioning, self, Preconditioning(noise, mean, spread))

    def __call__(self, x: Array, sigma: Any, label: Any = -1) -> Array:
        """The score of one image."""
        return self.preconditioning(self._inner, x, sigma, label)

    def _inner(self, z: Array, level: Array, label: Any) -> Array:
        channels, halved = self.inward.in_channels, 2 ** (len(self.down) - 1)
        given = z.shape[0] if z.ndim == 3 else 1
        if z.ndim not in (2, 3) or given != channels or any(n % halved for n in z.shape[-2:]):
            raise ValueError(
                f"This ScoreUNet is for images of {channels} channel(s), rows and columns divisible by {halved}; got a "
                f"sample of shape {z.shape}."
            )
        told = self.conditioning(level, label)
        h = self.inward(z if z.ndim == 3 else z[None])
        kept = []
        for i, block in enumerate(self.down):
            h = block(_halved(h) if i else h, told)
            kept.append(h)
        h = self.middle(h, told)
        for i, block in enumerate(self.up):
            h = block(jnp.concatenate([_doubled(h) if i else h, kept[-1 - i]]), told)
        return self.outward(jax.nn.silu(self.norm(h))).reshape(z.shape)


class _Dense(eqx.Module):
    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    told: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, width: int, key: Array):
        one, two, three = jax.random.split(key, 3)
        self.norm = eqx.nn.LayerNorm(width)
        self.first, self.told = eqx.nn.Linear(width, width, key=one), eqx.nn.Linear(width, width, key=two)
        self.second = _silent(eqx.nn.Linear(width, width, key=three))

    def __call__(self, h: Array, told: Array) -> Array:
        return h + self.second(jax.nn.silu(self.first(self.norm(h)) + self.told(told)))


class _Block(eqx.Module):
    """Two convolutions around which the image passes; the features of the level shift it between them."""

    first_norm: eqx.nn.GroupNorm
    first: eqx.nn.Conv2d
    told: eqx.nn.Linear
    second_norm: eqx.nn.GroupNorm
    second: eqx.nn.Conv2d
    past: eqx.nn.Conv2d | None

    def __init__(self, before: int, after: int, told: int, key: Array):
        one, two, three, four = jax.random.split(key, 4)
        self.first_norm, self.second_norm = eqx.nn.GroupNorm(8, before), eqx.nn.GroupNorm(8, after)
        self.first = eqx.nn.Conv2d(before, after, 3, padding=1, key=one)
        self.second = _silent(eqx.nn.Conv2d(after, after, 3, padding=1, key=two))
        self.told = eqx.nn.Linear(told, after, key=three)
        self.past = None if before == after else eqx.nn.Conv2d(before, after, 1, key=four)

    def __call__(self, h: Array, told: Array) -> Array:
        inner = self.first(jax.nn.silu(self.first_norm(h))) + self.told(told)[:, None, None]
        inner = self.second(jax.nn.silu(self.second_norm(inner)))
        return inner + (h if self.past is None else self.past(h))


def _halved(h: Array) -> Array:
    """Means over squares of 2 x 2."""
    c, rows, columns = h.shape
    return jnp.mean(h.reshape(c, rows // 2, 2, columns // 2, 2), axis=(2, 4))


def _doubled(h: Array) -> Array:
    """Every pixel four times."""
    return jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)


def _silent(layer: Any) -> Any:
    """The layer with weights zero: a block starts as the identity, a network as the Gaussian score."""
    return eqx.tree_at(lambda n: (n.weight, n.bias), layer, (jnp.zeros_like(layer.weight), jnp.zeros_like(layer.bias)))
