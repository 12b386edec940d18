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

from ..core.checks import as_field, is_known, whole
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

    @property
    def count(self) -> int:
        """Number of classes."""
        return 0 if self.classes is None else self.classes.shape[0] - 1

    def __call__(self, level: Array, label: Any) -> Array:
        phase = 2 * math.pi * level * jnp.asarray(FREQUENCIES, level.dtype)
        told = self.first(jnp.concatenate([jnp.cos(phase), jnp.sin(phase)]))
        if self.classes is not None:
            # A label that there is not gives NaN, where JAX would take the nearest or count from the end.
            row = jnp.where(jnp.asarray(label) < -1, self.count + 1, jnp.asarray(label) + 1)
            told = told + self.classes.at[row].get(mode="fill", fill_value=jnp.nan).astype(told.dtype)
        elif not is_known(label) or int(label) != -1:
            raise ValueError("This network knows no classes: make it with `classes=...`, or give no label.")
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

    def bound(self, noise: Any, mean: Any, spread: Any) -> "ScoreMlp":
        """The same network for another noise and other data, of a given mean and standard deviation."""
        told = Preconditioning(noise, as_field(mean, "mean", ()), as_field(spread, "spread", ()))
        return eqx.tree_at(lambda n: n.preconditioning, self, told)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.conditioning.count

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
    at the first halving; made to be trained on a CPU: inside, channels come last, which is faster there. Samples have
    the shape (rows, columns) or (channels, rows, columns). `fit_score` tells it the noise and the mean and standard
    deviation of the data, by `bound`.

    Args:
        shape: shape of one image; rows and columns divisible by patch 2^(resolutions - 1).
        key: random key of the initial weights.
        width: channels at the finest resolution, a multiple of 8.
        resolutions: number of resolutions, each half of the one before.
        classes: number of classes; labels are 0 .. classes - 1, and -1 for none.
        patch: side of the squares whose pixels become channels of one pixel at the entrance, and are spread again at
            the end. With 2 a step costs about a quarter at the same width.

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

    inward: "_Convolution"
    down: list
    middle: Any
    up: list
    norm: "_GroupNorm"
    outward: "_Convolution"
    conditioning: Conditioning
    preconditioning: Preconditioning
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        key: Array,
        width: int = 32,
        resolutions: int = 2,
        classes: int = 0,
        patch: int = 1,
    ):
        width, resolutions, self.patch = whole(width, "width"), whole(resolutions, "resolutions"), whole(patch, "patch")
        classes, least = whole(classes, "classes", least=0), patch * 2 ** (resolutions - 1)
        if len(shape) not in (2, 3) or any(n % least for n in shape[-2:]):
            raise ValueError(
                "`shape` must be (rows, columns) or (channels, rows, columns) with rows and columns divisible by "
                f"{least} for {resolutions} resolutions of patches of {patch}, got {tuple(shape)}."
            )
        if width % 8:
            raise ValueError(f"`width` must be a multiple of 8, got {width}.")
        channels = (shape[0] if len(shape) == 3 else 1) * patch**2
        widths = [width] + [2 * width] * (resolutions - 1)
        keys = iter(jax.random.split(key, 2 * resolutions + 5))
        told = 2 * width
        self.conditioning = Conditioning(told, classes, next(keys))
        self.inward = _Convolution(channels, width, 3, next(keys))
        before = [width, *widths[:-1]]
        self.down = [_Block(a, b, told, next(keys)) for a, b in zip(before, widths, strict=True)]
        self.middle = _Block(widths[-1], widths[-1], told, next(keys))
        self.up = [
            _Block(a + b, b, told, next(keys)) for a, b in zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True)
        ]
        self.norm = _GroupNorm(width)
        self.outward = _silent(_Convolution(width, channels, 3, next(keys)))
        self.preconditioning = Preconditioning(VarianceExploding(), jnp.zeros(()), jnp.ones(()))

    def bound(self, noise: Any, mean: Any, spread: Any) -> "ScoreUNet":
        """The same network for another noise and other data, of a given mean and standard deviation."""
        told = Preconditioning(noise, as_field(mean, "mean", ()), as_field(spread, "spread", ()))
        return eqx.tree_at(lambda n: n.preconditioning, self, told)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.conditioning.count

    def __call__(self, x: Array, sigma: Any, label: Any = -1) -> Array:
        """The score of one image."""
        return self.preconditioning(self._inner, x, sigma, label)

    def _inner(self, z: Array, level: Array, label: Any) -> Array:
        channels, halved = self.inward.weight.shape[2] // self.patch**2, self.patch * 2 ** (len(self.down) - 1)
        given = z.shape[0] if z.ndim == 3 else 1
        if z.ndim not in (2, 3) or given != channels or any(n % halved for n in z.shape[-2:]):
            raise ValueError(
                f"This ScoreUNet is for images of {channels} channel(s), rows and columns divisible by {halved}; got a "
                f"sample of shape {z.shape}."
            )
        told = self.conditioning(level, label)
        h = self.inward(_gathered(jnp.moveaxis(z, 0, -1) if z.ndim == 3 else z[..., None], self.patch))
        kept = []
        for i, block in enumerate(self.down):
            h = block(_halved(h) if i else h, told)
            kept.append(h)
        h = self.middle(h, told)
        for i, block in enumerate(self.up):
            h = block(jnp.concatenate([_doubled(h) if i else h, kept[-1 - i]], axis=-1), told)
        h = _scattered(self.outward(jax.nn.silu(self.norm(h))), self.patch)
        return jnp.moveaxis(h, -1, 0) if z.ndim == 3 else h[..., 0]


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

    first_norm: "_GroupNorm"
    first: "_Convolution"
    told: eqx.nn.Linear
    second_norm: "_GroupNorm"
    second: "_Convolution"
    past: "_Convolution | None"

    def __init__(self, before: int, after: int, told: int, key: Array):
        one, two, three, four = jax.random.split(key, 4)
        self.first_norm, self.second_norm = _GroupNorm(before), _GroupNorm(after)
        self.first = _Convolution(before, after, 3, one)
        self.second = _silent(_Convolution(after, after, 3, two))
        self.told = eqx.nn.Linear(told, after, key=three)
        self.past = None if before == after else _Convolution(before, after, 1, four)

    def __call__(self, h: Array, told: Array) -> Array:
        inner = self.first(jax.nn.silu(self.first_norm(h))) + self.told(told)
        inner = self.second(jax.nn.silu(self.second_norm(inner)))
        return inner + (h if self.past is None else self.past(h))


class _Convolution(eqx.Module):
    """A convolution of an image whose channels come last, with zeros around it."""

    weight: Array  # rows, columns, channels before, channels after
    bias: Array

    def __init__(self, before: int, after: int, size: int, key: Array):
        bound, (one, two) = 1 / (size * math.sqrt(before)), jax.random.split(key)
        self.weight = jax.random.uniform(one, (size, size, before, after), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(two, (after,), minval=-bound, maxval=bound)

    def __call__(self, h: Array) -> Array:
        weight, bias = self.weight.astype(h.dtype), self.bias.astype(h.dtype)
        return lax.platform_dependent(h, weight, cpu=_as_product, default=_convolved) + bias


def _convolved(h: Array, weight: Array) -> Array:
    return lax.conv_general_dilated(h[None], weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


@jax.checkpoint
def _as_product(h: Array, weight: Array) -> Array:
    """The same as one matrix product with the shifted images side by side, which the backward pass makes again.

    XLA for CPUs is slow at convolutions in loops: training and generation take a tenth of the time with products.
    """
    (rows, columns, _), size = h.shape, weight.shape[0]
    wide = jnp.pad(h, ((size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    shifts = [wide[i : i + rows, j : j + columns] for i in range(size) for j in range(size)]
    sides = jnp.concatenate(shifts, axis=-1).reshape(rows * columns, -1)
    return jnp.dot(sides, weight.reshape(sides.shape[1], -1)).reshape(rows, columns, -1)


class _GroupNorm(eqx.Module):
    """Mean zero and variance one in each of eight groups of channels; then a scale and a shift per channel."""

    weight: Array
    bias: Array

    def __init__(self, channels: int):
        self.weight, self.bias = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, h: Array) -> Array:
        groups = h.reshape(*h.shape[:2], 8, -1)
        away = groups - jnp.mean(groups, axis=(0, 1, 3), keepdims=True)
        away = away * lax.rsqrt(jnp.mean(away**2, axis=(0, 1, 3), keepdims=True) + 1e-5)
        return away.reshape(h.shape) * self.weight + self.bias


def _gathered(h: Array, patch: int) -> Array:
    """Squares of pixels as channels of one pixel."""
    rows, columns, c = h.shape
    squares = h.reshape(rows // patch, patch, columns // patch, patch, c)
    return jnp.swapaxes(squares, 1, 2).reshape(rows // patch, columns // patch, patch**2 * c)


def _scattered(h: Array, patch: int) -> Array:
    """The inverse of `_gathered`."""
    rows, columns, c = h.shape
    squares = jnp.swapaxes(h.reshape(rows, columns, patch, patch, c // patch**2), 1, 2)
    return squares.reshape(rows * patch, columns * patch, c // patch**2)


def _halved(h: Array) -> Array:
    """Means over squares of 2 x 2."""
    rows, columns, c = h.shape
    return jnp.mean(h.reshape(rows // 2, 2, columns // 2, 2, c), axis=(1, 3))


def _doubled(h: Array) -> Array:
    """Every pixel four times."""
    return jnp.repeat(jnp.repeat(h, 2, axis=0), 2, axis=1)


def _silent(layer: Any) -> Any:
    """The layer with weights zero: a block starts as the identity, a network as the Gaussian score."""
    return eqx.tree_at(lambda n: (n.weight, n.bias), layer, (jnp.zeros_like(layer.weight), jnp.zeros_like(layer.bias)))
