"""A score and its noise in the coordinates in which every noise looks the same."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array


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
