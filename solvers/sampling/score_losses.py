"""What a score is trained on: denoising, sliced and implicit score matching at all noise levels.

A loss is any function (score, noise, data, key, labels) -> number. All three have the same minimiser, the score of the
noisy data at every level; they differ in what they cost and how noisy they are. Ratios k = sigma / alpha are drawn so
that a batch covers the levels evenly, k_i from the quantile (u + i / n) mod 1 with one random u: the mean over a batch
then hardly feels the level.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array

from ..core.checks import as_field, check_positive, whole
from .flow import value_of
from .noise import perturb

# Weight of |sigma score + eps|^2 as a function of the ratio k in units of the spread of the data.
WEIGHTINGS: dict[str, Callable[[Array], Array]] = {
    "likelihood": jnp.ones_like,
    "denoiser": jnp.square,
    "edm": lambda k: 1 + k**2,
    "min_snr": lambda k: jnp.minimum(1.0, 5 * k**2),
}


class Levels(eqx.Module):
    """The law of the noise levels that a loss looks at: uniform or normal in log k, over the range of the noise.

    Args:
        mean: mean of log(k / spread), or None for the uniform law.
        deviation: standard deviation of log(k / spread).
        spread: standard deviation of the data.

    Raises:
        ValueError: if a deviation is not positive.

    Example:
        >>> import jax, solvers as sv
        >>> k = Levels().draw(sv.VarianceExploding(0.01, 10.0), jax.random.key(0), 1000, "float32")
        >>> bool(0.01 <= k.min() < 0.0102), bool(9.8 < k.max() <= 10.0)
        (True, True)
    """

    mean: Array | None
    deviation: Array
    spread: Array

    def __init__(self, mean: Any = None, deviation: Any = 1.2, spread: Any = 1.0):
        self.mean = None if mean is None else as_field(mean, "mean", ())
        self.deviation, self.spread = as_field(deviation, "deviation", ()), as_field(spread, "spread", ())
        check_positive(self.deviation, "deviation")
        check_positive(self.spread, "spread")

    def draw(self, noise: Any, key: Array, count: int, dtype: Any) -> Array:
        """`count` ratios that cover the law evenly."""
        u = (jax.random.uniform(key, (), dtype) + jnp.arange(count, dtype=dtype) / count) % 1.0
        low, high = (jnp.log(k).astype(dtype) for k in (noise.ratio(noise.sigma_min), noise.ratio_max()))
        if self.mean is None:
            return jnp.exp(low + u * (high - low))
        centre, width = (self.mean + jnp.log(self.spread)).astype(dtype), self.deviation.astype(dtype)
        first, last = ndtr((low - centre) / width), ndtr((high - centre) / width)
        # Quantiles of 0 and 1 are infinite, in single precision too.
        return jnp.exp(jnp.clip(centre + width * ndtri(first + u * (last - first)), low, high))


class Denoising(eqx.Module):
    """Denoising score matching: E w(k) |sigma score(alpha x0 + sigma eps, sigma) + eps|^2 / d.

    The cheapest, and the usual choice. With the weighting "likelihood", w = 1, and levels uniform in log k it bounds
    the log likelihood, whatever the noise is. "denoiser" is the error of the denoised mean, w = k^2; "edm" 1 + k^2;
    "min_snr" min(1, 5 k^2), with k in units of the spread of the data; or any function of that.

    Args:
        weighting: a name or a function of k / spread.
        levels: law of the noise levels, `Levels()`.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> data = jax.random.normal(jax.random.key(0), (2000, 2))
        >>> loss, noise = Denoising(), sv.VarianceExploding(0.1, 10.0)
        >>> right = loss(lambda x, s: -x / (1 + s**2), noise, data, jax.random.key(1))
        >>> bool(right < loss(lambda x, s: -x / (2 + s**2), noise, data, jax.random.key(1)))
        True

    Reference:
        P. Vincent, Neural Comput. 23 (2011) 1661; Y. Song and others, Maximum Likelihood Training of Score-Based
        Diffusion Models, NeurIPS 2021; T. Karras and others, NeurIPS 2022; T. Hang and others, ICCV 2023 (min-SNR).
    """

    weighting: str | Callable = eqx.field(static=True, default="likelihood")
    levels: Levels = eqx.field(default_factory=Levels)

    def __check_init__(self):
        check_weighting(self.weighting)

    def __call__(self, score: Callable, noise: Any, data: Array, key: Array, labels: Any = None) -> Array:
        """The mean over a batch of data, with a leading axis."""

        def one(told: Callable, x: Array, sigma: Array, eps: Array, key: Array) -> Array:
            return jnp.mean((sigma * value_of(told, x, sigma) + eps) ** 2)

        return _mean(one, self, score, noise, data, key, labels)


class Sliced(eqx.Module):
    """Sliced score matching: E w(k) sigma^2 (2 v^T (d score / d x) v + |score|^2) / d with random directions v.

    Needs no pair of clean and noisy data, but a derivative of the score per direction. Equal to `Denoising` up to a
    constant, and noisier. (This is the form with reduced variance: |score|^2 is not sliced.)

    Args:
        slices: number of directions per sample.
        law: "rademacher" (random signs) or "gaussian".
        weighting: as for `Denoising`.
        levels: law of the noise levels, `Levels()`.

    Raises:
        ValueError: for an unknown name, or no slice.

    Example:
        >>> Sliced(slices=2).law
        'rademacher'

    Reference:
        Y. Song, S. Garg, J. Shi, S. Ermon, Sliced Score Matching, UAI 2019, equation (8).
    """

    slices: int = eqx.field(static=True, default=1)
    law: str = eqx.field(static=True, default="rademacher")
    weighting: str | Callable = eqx.field(static=True, default="likelihood")
    levels: Levels = eqx.field(default_factory=Levels)

    def __check_init__(self):
        check_weighting(self.weighting)
        whole(self.slices, "slices")
        if self.law not in ("rademacher", "gaussian"):
            raise ValueError(f'`law` must be "rademacher" or "gaussian", got {self.law!r}.')

    def __call__(self, score: Callable, noise: Any, data: Array, key: Array, labels: Any = None) -> Array:
        """The mean over a batch of data, with a leading axis."""
        draw = jax.random.rademacher if self.law == "rademacher" else jax.random.normal

        def one(told: Callable, x: Array, sigma: Array, eps: Array, key: Array) -> Array:
            value, push = jax.linearize(lambda x: value_of(told, x, sigma), x)
            v = draw(key, (self.slices, *x.shape), x.dtype)
            slopes = jax.vmap(lambda v: jnp.sum(v * push(v)))(v)
            return sigma**2 * (2 * jnp.mean(slopes) + jnp.sum(value**2)) / x.size

        return _mean(one, self, score, noise, data, key, labels)


class Implicit(eqx.Module):
    """Implicit score matching: E w(k) sigma^2 (2 tr(d score / d x) + |score|^2) / d with the exact trace.

    For small dimensions: the trace takes d derivatives of the score.

    Args:
        weighting: as for `Denoising`.
        levels: law of the noise levels, `Levels()`.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> Implicit().weighting
        'likelihood'

    Reference:
        A. Hyvärinen, J. Mach. Learn. Res. 6 (2005) 695, theorem 1.
    """

    weighting: str | Callable = eqx.field(static=True, default="likelihood")
    levels: Levels = eqx.field(default_factory=Levels)

    def __check_init__(self):
        check_weighting(self.weighting)

    def __call__(self, score: Callable, noise: Any, data: Array, key: Array, labels: Any = None) -> Array:
        """The mean over a batch of data, with a leading axis."""

        def one(told: Callable, x: Array, sigma: Array, eps: Array, key: Array) -> Array:
            value, push = jax.linearize(lambda x: value_of(told, x, sigma), x)
            columns = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
            trace = jnp.sum(jax.vmap(lambda v: jnp.sum(v * push(v)))(columns))
            return sigma**2 * (2 * trace + jnp.sum(value**2)) / x.size

        return _mean(one, self, score, noise, data, key, labels)


def _mean(one: Callable, loss: Any, score: Callable, noise: Any, data: Array, key: Array, labels: Any) -> Array:
    """The weighted mean of `one` over a batch, each sample at a level of its own."""
    count, dtype = data.shape[0], data.dtype
    first, second, third = jax.random.split(key, 3)
    ratios = loss.levels.draw(noise, first, count, dtype)
    eps = jax.random.normal(second, data.shape, dtype)
    weighting = WEIGHTINGS[loss.weighting] if isinstance(loss.weighting, str) else loss.weighting

    def each(x0: Array, k: Array, eps: Array, key: Array, label: Any) -> Array:
        x, sigma = perturb(noise, x0, k, eps)
        told = score if label is None else (lambda x, sigma: score(x, sigma, label))
        return weighting(k / loss.levels.spread.astype(dtype)) * one(told, x, sigma, eps, key)

    return jnp.mean(jax.vmap(each)(data, ratios, eps, jax.random.split(third, count), labels))


def check_weighting(weighting: Any) -> None:
    """ValueError unless it is a known name or a function."""
    if not callable(weighting) and weighting not in WEIGHTINGS:
        raise ValueError(f"`weighting` must be one of {sorted(WEIGHTINGS)} or a function of k, got {weighting!r}.")
