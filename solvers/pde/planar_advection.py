"""Advection in the plane, -(u . grad) w, by two complex transforms there and a real one back.

    z = u + i v = sum_k (k + i m) / |k|^2 w_k e^(i k . x),    q = w_x + i w_y = sum_k i (k + i m) w_k e^(i k . x)

with k = (k, m), and (u . grad) w = Re(conj(z) q). Of a real field one half of the modes is stored; the transforms here
take all of them, in the order -cut .. cut of both axes, at the beginning of the spectrum. Both fields are then off by
the same phase, which conj(z) q does not know, and no corners have to be put together.

With products free of aliasing this is Basdevant's form, the curl of div(u u),

    (u . grad) w = (d_xx - d_yy)(u v) + d_xy(v^2 - u^2) = the real part of sum_k (i/2) (k - i m)^2 (z^2)_k e^(i k . x),

which needs z alone. Its two derivatives raise the round-off of the products by |k|^2, more than all else at 256 nodes
in single precision, so the value is formed as advection; but the derivative, 2 z dz, is taken of this form, where
reverse mode needs half of the transforms.

Reference:
    C. Basdevant, Journal of Computational Physics 50 (1983), 209.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.fourier import Modes
from ..core.linear_map import linear_map


def advected(modes: Modes, vorticity: Array, mean: Array, scalars: Array | None) -> tuple[Array, Array | None]:
    """Modes of -(u . grad) w, for the vorticity w and the mean velocity that make u, and of -(u . grad) of scalars."""
    # Aliased products make the two forms differ, and the derivative of one is not that of the other.
    rates = _advected if modes.dealias == "none" else _advected_by_parts
    found = rates(modes, vorticity, mean, jnp.zeros((0, *modes.shape), vorticity.dtype) if scalars is None else scalars)
    return found[0], None if scalars is None else found[1:]


def _advected(modes: Modes, vorticity: Array, mean: Array, scalars: Array) -> Array:
    """The rate of the vorticity and behind it those of the scalars."""
    z, *slopes = _fields(modes, [_swirl(modes, vorticity), *_slopes(modes, [vorticity, *scalars])], mean)
    return jnp.stack([_modes_of_rate(modes, _along(z, q)) for q in slopes])


_advected_by_parts = jax.custom_jvp(_advected, nondiff_argnums=(0,))


@_advected_by_parts.defjvp
def _advected_jvp(modes: Modes, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # Batches of their own, so that the reverse sweep does not transform the slope of the vorticity again.
    (z, *q), (dz, *dq) = (
        _fields(modes, [_swirl(modes, vorticity), *_slopes(modes, scalars)], mean)
        for vorticity, mean, scalars in (primals, tangents)
    )
    k, m = _wavenumbers(modes, z.real.dtype)
    factor = lax.complex(-k * m, 0.5 * (m**2 - k**2))  # -(i/2) (k - i m)^2
    carried = [_modes_of_rate(modes, _along(dz, a) + _along(z, b)) for a, b in zip(q, dq, strict=True)]
    return _advected(modes, *primals), jnp.stack([_modes_of_square(modes, factor, 2 * z * dz), *carried])


def _swirl(modes: Modes, vorticity: Array) -> tuple[Array, Array]:
    """z as (factor, modes), without the mean velocity."""
    k, m = _wavenumbers(modes, vorticity.real.dtype)
    square = k**2 + m**2
    inverse = jnp.where(square > 0, 1 / jnp.where(square > 0, square, 1), 0)
    return lax.complex(k * inverse, m * inverse), vorticity


def _slopes(modes: Modes, scalars: Any) -> list[tuple[Array, Array]]:
    """q of each scalar as (factor, modes)."""
    return [(lax.complex(-m, k), scalar) for scalar in scalars for k, m in [_wavenumbers(modes, scalar.real.dtype)]]


def _along(z: Array, q: Array) -> Array:
    """-(u . grad) of a scalar whose slope is q, on the points."""
    return -(z.real * q.real + z.imag * q.imag)


def _modes_of_rate(modes: Modes, rate: Array) -> Array:
    """Its modes; the mean stays what it is, to the last bit."""
    return modes.from_points(rate).at[0, 0].set(0)


# ---- Transforms of all modes


def _fields(modes: Modes, terms: list[tuple[Array, Array]], mean: Array) -> Array:
    """sum_k factor_k c_k e^(i (k + cut) . x) of each term (factor, c), c stored for one half.

    One batch of transforms, which uses two processors better; the first has the mean in the place of k = 0.
    """
    factors, halves = zip(*terms, strict=True)
    weights, count = modes.weights(halves[0].real.dtype), math.prod(modes.points)

    def forward(_: Any, given: tuple[Any, Array]) -> Array:
        halves, mean = given
        first, *rest = [factor * _full(half) for factor, half in zip(factors, halves, strict=True)]
        first = jnp.where(_is_mean(modes), lax.complex(*mean), first)
        return _synthesis(modes, jnp.stack([first, *rest]), 1)

    def back(_: Any, fields: Array) -> tuple[Any, Array]:
        spectra = jnp.conj(count * _spectrum(modes, jnp.conj(fields), 1))
        middle = spectra[0][modes.cut]
        halves = tuple(weights * _half(f * s) for f, s in zip(factors, spectra, strict=True))
        return halves, jnp.stack([middle.real, -middle.imag])

    return linear_map(forward, back, (), (halves, mean))


def _modes_of_square(modes: Modes, factor: Array, field: Array) -> Array:
    """The modes of Re sum_k factor_k F_k e^(i k . x), of a field sum_k F_k e^(i (k + 2 cut) . x)."""
    weights, count = modes.weights(field.real.dtype), math.prod(modes.points)

    def back(_: Any, half: Array) -> Array:
        spectrum = jnp.conj(factor) * _full(jnp.conj(half) / weights)
        return jnp.conj(_synthesis(modes, spectrum, 2)) / count

    return linear_map(lambda _, f: _half(factor * _spectrum(modes, f, 2)), back, (), field)


def _synthesis(modes: Modes, spectrum: Array, shift: int) -> Array:
    """sum_k c_k e^(i (k + shift cut) . x) on the points, of all coefficients in the order -cut .. cut."""
    ends = [(0, 0, 0)] * (spectrum.ndim - 2) + [
        ((shift - 1) * k, n - (shift + 1) * k - 1, 0) for k, n in zip(modes.cut, modes.points, strict=True)
    ]
    zero = jnp.zeros((), spectrum.dtype)
    return jnp.fft.ifft2(lax.pad(math.prod(modes.points) * spectrum, zero, ends))


def _spectrum(modes: Modes, field: Array, shift: int) -> Array:
    """The coefficients c_k of a field sum_k c_k e^(i (k + shift cut) . x), in the order -cut .. cut."""
    part = tuple(slice((shift - 1) * k, (shift + 1) * k + 1) for k in modes.cut)
    return jnp.fft.fft2(field)[..., *part] / math.prod(modes.points)


def _full(half: Array) -> Array:
    """All coefficients of a real field in the order -cut .. cut, from the half that is stored.

    Where m = 0 both k and -k are stored; what is not conj(c(-k)) = c(k) there belongs to no real field and is left out,
    as the real transform does.
    """
    cut = half.shape[1] - 1
    rows = jnp.roll(half, half.shape[0] // 2, axis=0)
    line, rest = rows[:, :1], rows[:, 1:]
    opposite = jnp.conj(jnp.flip(rows, (0, 1)))
    return jnp.concatenate([opposite[:, :cut], (line + opposite[:, cut:]) / 2, rest], axis=1)


def _half(full: Array) -> Array:
    """The coefficients to be stored of the real part of a field, from all in the order -cut .. cut."""
    cut = full.shape[1] // 2
    real = (full[:, cut:] + jnp.conj(jnp.flip(full[:, : cut + 1], (0, 1)))) / 2
    return jnp.roll(real, -(full.shape[0] // 2), axis=0)


def _wavenumbers(modes: Modes, dtype: Any) -> tuple[Array, Array]:
    """k and m of all coefficients in the order -cut .. cut."""
    rows, columns = (
        jnp.asarray([2 * math.pi / period * i for i in range(-cut, cut + 1)], dtype)
        for cut, period in zip(modes.cut, modes.period, strict=True)
    )
    shape = (rows.size, columns.size)
    return jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None], shape)


def _is_mean(modes: Modes) -> Array:
    rows, columns = (jnp.arange(-cut, cut + 1) == 0 for cut in modes.cut)
    return rows[:, None] & columns[None]
