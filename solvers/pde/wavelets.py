"""Source signals, and how fine a grid a signal needs."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import check_positive, whole
from .operators import second_difference

ORDERS = (2, 4, 6, 8)


def ricker(peak_frequency: Any, *, steps: int, dt: Any, delay: Any = None) -> Array:
    """Ricker wavelet (1 - 2 a) exp(-a), a = (pi f (t - delay))^2, at the times 0, dt, ..., (steps - 1) dt.

    Args:
        peak_frequency: frequency f of the maximum of its spectrum, Hz.
        steps: number of samples.
        dt: time between samples, s.
        delay: time of the peak, s; 1.5 / f by default, when the signal starts at 1e-8 of the peak.

    Returns:
        The signal, shape (steps,).

    Raises:
        ValueError: if steps is not a whole number of at least 1, or the frequency is not positive.

    Example:
        >>> signal = ricker(10.0, steps=300, dt=0.001)
        >>> signal.shape, int(signal.argmax())
        ((300,), 150)

    Reference:
        Ricker, Geophysics 18 (1953), 10.
    """
    steps = whole(steps, "steps")
    check_positive(peak_frequency, "peak_frequency")
    delay = 1.5 / peak_frequency if delay is None else delay
    a = (jnp.pi * peak_frequency * (jnp.arange(steps) * dt - delay)) ** 2
    return (1 - 2 * a) * jnp.exp(-a)


def points_per_wavelength(speed: Any, spacing: Any, frequency: float | int) -> float:
    """Nodes per shortest wavelength, min(speed) / (frequency * largest spacing).

    Order 8 wants 4 to 5 at the highest frequency of the signal (2.5 times the peak of a Ricker wavelet), order 4
    about 8, order 2 15 or more; `dispersion` gives the error.

    Example:
        >>> points_per_wavelength(1500.0, 30.0, 5.0)
        10.0
    """
    return float(np.min(np.asarray(speed)) / (frequency * np.max(spacing)))


def dispersion(points: float | int, *, order: int = 8, courant: float | int = 0.5, time_order: int = 2) -> float:
    """Relative error of the phase speed of a plane wave along an axis.

    Args:
        points: nodes per wavelength.
        order: order of the scheme in space.
        courant: speed * dt / spacing.
        time_order: 2 or 4.

    Returns:
        (numerical speed - true speed) / true speed; negative where waves lag.

    Raises:
        ValueError: for an order that no scheme has, a wave that is not resolved (fewer than 2 points), an unstable
            step.

    Example:
        >>> round(dispersion(5.0, order=8, courant=0.1), 5), round(dispersion(5.0, order=2, courant=0.1), 4)
        (-3e-05, -0.064)
    """
    if order not in ORDERS or time_order not in (2, 4):
        raise ValueError(f"`order` must be one of {ORDERS} and `time_order` 2 or 4, got {order!r} and {time_order!r}.")
    if points < 2:
        raise ValueError(f"A wave needs at least 2 points per wavelength, got {points}.")
    k = 2 * np.pi / points
    c = second_difference(order)
    symbol = -(c[0] + 2 * sum(ck * np.cos(j * k) for j, ck in enumerate(c[1:], 1)))
    z = courant**2 * symbol
    # Leapfrog: 4 sin^2(omega dt / 2) = z, or z - z^2 / 12 with the modified equation.
    z = z - z**2 / 12 if time_order == 4 else z
    if not 0 <= z <= 4:
        raise ValueError(f"The step is not stable at Courant number {courant}.")
    return float(2 * np.arcsin(np.sqrt(z) / 2) / (courant * k) - 1)
