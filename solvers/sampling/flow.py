"""A score and its noise in the coordinates in which every noise looks the same."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import is_known

APART = 0.01  # difference of two alphas at equal sigma, above which two noises are not the same


class Watched(eqx.Module):
    """A function together with a fingerprint of what it captures, so that no compilation outlives a change of that."""

    function: Callable
    seen: Any = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Flow(eqx.Module):
    """A score in the coordinates y = x / alpha = x0 + k eps, with the ratio k = sigma / alpha.

    There the noise is only added, its standard deviation is k, and by Tweedie's formula

        D(y, k) = E[x0 | y] = y + k^2 grad log p(y; k) = y + k sigma score(alpha y, sigma).

    All methods of generation need D alone: the probability flow is dy/dk = (y - D) / k, the reverse diffusion
    dy = 2 (D - y) dt + sqrt(2) k dW in the time t = -log k.
    """

    score: Callable
    noise: Any

    def denoise(self, y: Array, k: Array) -> Array:
        """D(y, k), the mean of the data given y."""
        return y + k**2 * self.pull(y, k)

    def pull(self, y: Array, k: Array) -> Array:
        """grad log p(y; k)."""
        alpha, sigma = self.noise.scales(k)
        return alpha * value_of(self.score, alpha * y, sigma)


def value_of(score: Callable, x: Array, sigma: Array) -> Array:
    """The score of one sample, in its shape and dtype."""
    value = jnp.asarray(score(x, sigma))
    if value.shape != x.shape:
        raise ValueError(
            f"`score` must return the shape of one sample, {x.shape} (no batch axis), got {value.shape}. It is called "
            "as score(x, sigma) with a scalar sigma."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"`score` must return real floating numbers, got dtype {value.dtype}.")
    return value.astype(x.dtype)


# ---- Checks that all doors share ----


def check_kinds(score: Any, noise: Any, key: Any) -> None:
    """TypeError for a score, noise or key of a wrong kind, ValueError for a score that was made for another noise."""
    if not callable(score):
        raise TypeError(f"`score` must be a function of (x, sigma), got {score!r}.")
    check_noise(noise)
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise TypeError(f"`key` must be one key, from jax.random.key(seed), got {key!r}.")
    _check_same_noise(score, noise)


def check_noise(noise: Any) -> None:
    """TypeError unless it is a forward noise."""
    if not hasattr(noise, "scales"):
        raise TypeError(f"`noise` must be a forward noise such as VarianceExploding(0.01, 10.0), got {noise!r}.")


def _check_same_noise(score: Any, noise: Any) -> None:
    """ValueError where a score that holds the noise it was made for is asked about another one.

    A score is told sigma and works out alpha from its own noise. The two need not have the same range or the same
    times, but the same alpha wherever they have the same sigma.
    """
    own = getattr(getattr(score, "preconditioning", score), "noise", None)
    if (
        own is None
        or own is noise
        or not hasattr(own, "ratio")
        or not all(is_known(x) for x in jax.tree.leaves((own, noise)))
    ):
        return
    low, high = float(noise.ratio(noise.sigma_min)), float(noise.ratio_max())
    alpha, sigma = noise.scales(jnp.asarray(np.geomspace(low, high, 5), noise.sigma_min.dtype))
    gaps = np.abs(np.asarray(sigma / own.ratio(sigma)) - np.asarray(alpha))
    # Beyond its largest sigma a noise answers with NaN.
    if not np.all(gaps <= APART):
        raise ValueError(
            f"The score was made for {type(own).__name__}, which scales the data by another factor at the same sigma "
            f"than {type(noise).__name__} does: give the noise that the score was trained with."
        )


def check_labels(score: Any, labels: Any) -> None:
    """TypeError for a score that takes no label, ValueError for labels that it does not know."""
    try:
        inspect.signature(score).bind(None, None, None)
    except TypeError:
        raise TypeError(
            "With labels the score is called as score(x, sigma, label); this one does not take three arguments."
        ) from None
    except ValueError:  # no signature to be had
        pass
    classes = getattr(score, "classes", None)
    if not isinstance(classes, int) or not is_known(labels):
        return
    if classes == 0:
        raise ValueError(f"This {type(score).__name__} knows no classes: make one with `classes=...` and train it.")
    most = int(np.max(np.asarray(labels)))
    if most >= classes:
        raise ValueError(
            f"This {type(score).__name__} knows {classes} classes, labels 0 to {classes - 1}; got the label {most}."
        )
