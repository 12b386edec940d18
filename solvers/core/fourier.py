"""Fourier modes of periodic fields: which are kept, transforms, derivatives, projection, spectra.

A field on the nodes of a `Grid` is taken as periodic with the period `shape * spacing` along each axis. `Modes` keeps
the coefficients up to a cut per axis and no others, so that what dealiasing would set to zero is neither stored nor
computed with.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .checks import check_finite, is_known, warn_of_truncation
from .grid import Grid, check_grid
from .linear_map import linear_map

# Per name: the degree of the products that it keeps free of aliasing, and whether by cutting or by padding.
DEALIASING = {"2/3": (2, "cut"), "1/2": (3, "cut"), "3/2": (2, "pad"), "2": (3, "pad"), "none": (1, "pad")}


class Modes(eqx.Module):
    """Fourier modes that are kept of fields on a periodic grid.

    A field and its coefficients are related by

        f(x) = sum_k c_k exp(i k . (x - origin)),    k_i = 2 pi m_i / L_i,    |m_i| <= cut_i,    L_i = shape_i spacing_i

    and of a real field only the half m_last >= 0 is stored; axes other than the last hold m = 0, 1, ..., cut, -cut,
    ..., -1. The coefficients have the shape `shape`, behind any leading axes for components. The Nyquist mode of an
    even axis is never kept: its phase is not determined by the nodes, and it has no odd derivative.

    A product of p fields of band `cut` has the band p * cut. On n nodes its modes within the cut are free of aliasing
    if n > (p + 1) cut. Either the cut is so low that the grid itself has enough nodes (names "2/3" for p = 2, "1/2" for
    p = 3), or the cut is as high as the grid allows and products are formed on more nodes, `points` ("3/2", "2"). With
    "none" the cut is highest and products alias.

    The transforms know their own transposes: reverse mode costs what forward mode costs. Any number of nodes per axis
    is allowed, odd ones too; numbers with small prime factors are fast.

    Args:
        grid: nodes; one, two or three axes.
        dealias: "2/3", "1/2", "3/2", "2" or "none".
        real: whether fields are real; complex ones keep both halves of the last axis.

    Raises:
        ValueError: for an unknown name, or a grid too small to keep any mode but the mean.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> grid = Grid(shape=(16, 12), spacing=(2 * np.pi / 16, 1.0))
        >>> modes = Modes(grid)
        >>> modes.cut, modes.shape
        ((5, 3), (11, 4))
        >>> x, _ = np.meshgrid(*grid.axes(), indexing="ij")
        >>> slope = modes.to_field(modes.derivative(modes.to_modes(jnp.sin(3 * x)), axis=0))
        >>> bool(jnp.max(jnp.abs(slope - 3 * jnp.cos(3 * x))) < 1e-5)
        True

    Reference:
        Canuto, Hussaini, Quarteroni and Zang, Spectral Methods: Fundamentals in Single Domains (2006), sections 2.1 and
        3.4.
    """

    grid: Grid = eqx.field(static=True)
    dealias: str = eqx.field(static=True)
    real: bool = eqx.field(static=True)
    cut: tuple[int, ...] = eqx.field(static=True)
    points: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, grid: Grid, dealias: str = "2/3", real: bool = True):
        if dealias not in DEALIASING:
            raise ValueError(f"`dealias` must be one of {', '.join(map(repr, DEALIASING))}, got {dealias!r}.")
        degree, how = DEALIASING[dealias]
        share = degree + 1 if how == "cut" else 2
        for axis, n in enumerate(check_grid(grid).shape):
            if n <= share:
                raise ValueError(f'dealias="{dealias}" needs at least {share + 1} nodes per axis, axis {axis} has {n}.')
        self.grid, self.dealias, self.real = grid, dealias, bool(real)
        self.cut = tuple((n - 1) // share for n in grid.shape)
        padded = tuple(fast_size((degree + 1) * k + 1) for k in self.cut)
        self.points = grid.shape if how == "cut" or degree == 1 else padded

    # ---- Shapes and wavenumbers

    @property
    def ndim(self) -> int:
        """Number of axes of the grid."""
        return self.grid.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the coefficients of one field."""
        return tuple(k + 1 if self._halved(axis) else 2 * k + 1 for axis, k in enumerate(self.cut))

    @property
    def period(self) -> tuple[float, ...]:
        """Period L of each axis."""
        return tuple(n * h for n, h in zip(self.grid.shape, self.grid.spacing, strict=True))

    def indices(self) -> tuple[np.ndarray, ...]:
        """Whole numbers m of each axis, each of a shape that broadcasts against the coefficients."""
        found = []
        for axis, k in enumerate(self.cut):
            m = np.arange(k + 1) if self._halved(axis) else np.concatenate([np.arange(k + 1), np.arange(-k, 0)])
            found.append(m.reshape([-1 if a == axis else 1 for a in range(self.ndim)]))
        return tuple(found)

    def wavenumbers(self, dtype: Any = np.float64) -> tuple[np.ndarray, ...]:
        """k = 2 pi m / L of each axis in the given precision, each of a shape that broadcasts."""
        pairs = zip(self.indices(), self.period, strict=True)
        return tuple((2 * np.pi / period * m).astype(dtype) for m, period in pairs)

    def squared(self, dtype: Any) -> Array:
        """|k|^2 of every mode."""
        # Squared in double precision; summed on the device, so that no large constant enters the program.
        parts = [jnp.asarray((k**2).astype(dtype)) for k in self.wavenumbers()]
        return jnp.broadcast_to(sum(parts[1:], start=parts[0]), self.shape)

    def weights(self, dtype: Any) -> np.ndarray:
        """Parseval weights of the last axis: how many modes of the full set each stored one stands for.

        mean(f g) = sum(w Re(conj(c) d)) over the stored modes; 1 for m_last = 0 and 2 for the others of a real field.
        """
        last = self.shape[-1]
        return np.where(np.arange(last) == 0, 1, 2 if self.real else 1).astype(dtype)

    # ---- Transforms. What is called from outside of `jit` is one program, not one for each of its operations.

    @eqx.filter_jit
    def to_modes(self, field: Any) -> Array:
        """Coefficients of a field on the nodes of the grid (leading axes are kept); modes above the cut are dropped."""
        return self._analysis(jnp.asarray(field), self.grid.shape)

    @eqx.filter_jit
    def to_field(self, modes: Array) -> Array:
        """The field on the nodes of the grid; the inverse of `to_modes` for fields without modes above the cut."""
        return self._synthesis(modes, self.grid.shape)

    def from_points(self, field: Array) -> Array:
        """Coefficients of a field on the `points`, where products are formed."""
        return self._analysis(field, self.points)

    def to_points(self, modes: Array) -> Array:
        """The field on the `points`: `points[i]` nodes per period, beginning at the origin."""
        return self._synthesis(modes, self.points)

    def to_points_paired(self, first: Array, second: Array) -> Array:
        """f + i g on the `points` of two real fields, by one complex transform: less than two real ones cost."""
        count = math.prod(self.points)
        weights = self.weights(first.real.dtype)

        def back(_: Any, field: Array) -> tuple[Array, Array]:
            # The cotangent of f is the real part, that of g minus the imaginary part.
            pair = _split(_transform(jnp.conj(field), self.points, self.cut, False), self.ndim)
            return tuple(weights * count * jnp.conj(c) for c in pair)  # type: ignore[return-value]

        return linear_map(lambda _, c: self._paired_synthesis(*c), back, (), (first, second))

    def from_points_paired(self, field: Array) -> tuple[Array, Array]:
        """Coefficients of the real fields f and g, given f + i g on the `points`."""
        count = math.prod(self.points)
        weights = self.weights(field.real.dtype)
        return linear_map(
            lambda _, f: _split(_transform(f, self.points, self.cut, False), self.ndim),
            lambda _, c: jnp.conj(self._paired_synthesis(*(jnp.conj(x) / (weights * count) for x in c))),
            (),
            field,
        )

    # ---- Operators

    def derivative(self, modes: Array, axis: int, order: int = 1) -> Array:
        """Coefficients of the derivative of an order along an axis."""
        k = self.wavenumbers()[axis] ** order
        unit = (1, 1j, -1, -1j)[order % 4]
        return modes * jnp.asarray((unit * k).astype(modes.dtype if order % 2 else modes.real.dtype))

    def inverse_laplacian(self, modes: Array) -> Array:
        """Solution of the Poisson equation lap(u) = f with mean zero; the mean of f is left out."""
        return -modes * self.inverse_squared(modes.real.dtype)

    def inverse_squared(self, dtype: Any) -> Array:
        """1 / |k|^2 of every mode, 0 for the mean."""
        k2 = self.squared(dtype)
        return jnp.where(k2 > 0, 1 / jnp.where(k2 > 0, k2, 1), 0)

    def divergence(self, modes: Any) -> Array:
        """Coefficients of the divergence of a vector field, whose components are the leading axis."""
        return sum((self.derivative(modes[i], i) for i in range(1, self.ndim)), start=self.derivative(modes[0], 0))

    def project(self, modes: Array) -> Array:
        """Leray projection: the part of a vector field without divergence, c - k (k . c) / |k|^2; keeps the mean."""
        dtype = modes.real.dtype
        ks = [jnp.asarray(k) for k in self.wavenumbers(dtype)]
        along = sum((k * modes[i] for i, k in enumerate(ks[1:], 1)), start=ks[0] * modes[0])
        along = along * self.inverse_squared(dtype)
        return jnp.stack([modes[i] - k * along for i, k in enumerate(ks)])

    # ---- Sums over modes

    @eqx.filter_jit
    def inner(self, first: Array, second: Array) -> Array:
        """Mean over the box of the product of two fields, summed over leading axes; exact (Parseval)."""
        weights = self.weights(first.real.dtype)
        return jnp.sum(weights * (first.real * second.real + first.imag * second.imag))

    @eqx.filter_jit
    def spectrum(self, density: Array) -> tuple[Array, Array]:
        """Sum a density over shells of wavenumbers: (k of the shells, density per unit of wavenumber).

        The shells have the width dk of the longest period, 2 pi / max(L), and shell s holds |k| within dk / 2 of s dk.
        They cover all modes: sum(spectrum) dk is the sum of the density.

        Args:
            density: real, one value per stored mode, such as |c|^2 / 2; the Parseval weights are put in here.
        """
        dk = 2 * math.pi / max(self.period)
        largest = math.sqrt(sum((2 * math.pi * m / p) ** 2 for m, p in zip(self.cut, self.period, strict=True)))
        count = math.floor(largest / dk + 0.5 + 1e-6) + 1
        shell = jnp.round(jnp.sqrt(self.squared(density.dtype)) * jnp.asarray(1 / dk, density.dtype)).astype(jnp.int32)
        weighed = density * self.weights(density.dtype)
        sums = jax.ops.segment_sum(weighed.ravel(), shell.ravel(), num_segments=count)
        return jnp.asarray((dk * np.arange(count)).astype(density.dtype)), sums / jnp.asarray(dk, density.dtype)

    def convert(self, modes: Array, other: "Modes") -> Array:
        """The same field as coefficients of another set of modes on the same box, cut or filled with zeros."""
        same = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(self.period, other.period, strict=False))
        if self.ndim != other.ndim or self.real != other.real or not same:
            raise ValueError(
                f"Both sets of modes must belong to one box and one kind of field; periods {self.period} and "
                f"{other.period}, real {self.real} and {other.real}."
            )
        common = tuple(min(a, b) for a, b in zip(self.cut, other.cut, strict=True))
        return _embed(_extract(modes, common, self.real), other.shape, common, self.real)

    # ---- Parts

    def _halved(self, axis: int) -> bool:
        return self.real and axis == self.ndim - 1

    def _synthesis(self, modes: Array, shape: tuple[int, ...]) -> Array:
        if modes.shape[modes.ndim - self.ndim :] != self.shape or not jnp.iscomplexobj(modes):
            raise ValueError(
                f"Coefficients must be complex with the last axes {self.shape}, got {modes.dtype}{list(modes.shape)}."
            )
        if not self.real:
            return _inverse_transform(modes, shape, self.cut, False)
        weights, count = self.weights(modes.real.dtype), math.prod(shape)
        return linear_map(
            lambda _, c: _inverse_transform(c, shape, self.cut, True),
            lambda _, f: weights * count * jnp.conj(_transform(f, shape, self.cut, True)),
            (),
            modes,
        )

    def _paired_synthesis(self, first: Array, second: Array) -> Array:
        return _inverse_transform(_join(first, second, self.ndim), self.points, self.cut, False)

    def _analysis(self, field: Array, shape: tuple[int, ...]) -> Array:
        if field.shape[field.ndim - self.ndim :] != shape:
            raise ValueError(f"The field must have the last axes {shape}, got shape {field.shape}.")
        if self.real and not jnp.issubdtype(field.dtype, jnp.floating):
            raise ValueError(f"The field must hold real floating numbers, got dtype {field.dtype}.")
        if not self.real:
            return _transform(field, shape, self.cut, False)
        weights, count = self.weights(field.dtype), math.prod(shape)
        return linear_map(
            lambda _, f: _transform(f, shape, self.cut, True),
            lambda _, c: _inverse_transform(jnp.conj(c) / (weights * count), shape, self.cut, True),
            (),
            field,
        )


def resample(field: Any, grid: Grid, shape: Sequence[int]) -> Array:
    """A real periodic field on other nodes of the same box, by its Fourier series: exact for band-limited fields.

    Args:
        field: shape `grid.shape`, with any leading axes.
        grid: its grid.
        shape: new number of nodes per axis. Modes that they cannot hold are dropped.

    Raises:
        ValueError: for a wrong shape, complex values, values that are not finite.

    Example:
        >>> import numpy as np
        >>> coarse = Grid(shape=8, spacing=2 * np.pi / 8)
        >>> fine = resample(np.sin(coarse.axes()[0]).astype("float32"), coarse, (16,))
        >>> bool(abs(fine[4] - 1.0) < 1e-6)
        True
    """
    shape = tuple(int(n) for n in shape)
    if is_known(field):
        warn_of_truncation(field, "field")
        check_finite(np.asarray(field), "field")
    other = Grid(shape, [n * h / m for n, h, m in zip(grid.shape, grid.spacing, shape, strict=True)], grid.origin)
    old, new = Modes(grid, "none"), Modes(other, "none")
    return new.to_field(old.convert(old.to_modes(field), new))


def fast_size(least: int) -> int:
    """The smallest even number of at least `least` whose prime factors are 2, 3 and 5.

    Example:
        >>> fast_size(11), fast_size(97), fast_size(256)
        (12, 100, 256)
    """
    size = max(least + least % 2, 2)
    while not _smooth(size):
        size += 2
    return size


def _smooth(size: int) -> bool:
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    return size == 1


def _transform(field: Array, shape: tuple[int, ...], cut: tuple[int, ...], real: bool) -> Array:
    """Coefficients within the cut of a field on nodes of the given shape."""
    axes = tuple(range(field.ndim - len(shape), field.ndim))
    spectrum = jnp.fft.rfftn(field, axes=axes) if real else jnp.fft.fftn(field, axes=axes)
    return _extract(spectrum, cut, real) / math.prod(shape)


def _inverse_transform(modes: Array, shape: tuple[int, ...], cut: tuple[int, ...], real: bool) -> Array:
    """The field on nodes of the given shape from its coefficients within the cut."""
    axes = tuple(range(modes.ndim - len(shape), modes.ndim))
    full = (*shape[:-1], shape[-1] // 2 + 1) if real else shape
    spectrum = _embed(modes * math.prod(shape), full, cut, real)
    return jnp.fft.irfftn(spectrum, s=shape, axes=axes) if real else jnp.fft.ifftn(spectrum, axes=axes)


def _corners(shape: tuple[int, ...], cut: tuple[int, ...], real: bool) -> list[tuple]:
    """Index of each corner (all sign combinations) of a spectrum whose last axes have the given shape."""
    found: list[tuple] = [(...,)]
    for axis, (n, k) in enumerate(zip(shape, cut, strict=True)):
        sides = [slice(0, k + 1)] if real and axis == len(shape) - 1 else [slice(0, k + 1), slice(n - k, n)]
        found = [(*corner, side) for corner in found for side in sides]
    return found


def _embed(modes: Array, shape: tuple[int, ...], cut: tuple[int, ...], real: bool) -> Array:
    """Coefficients within the cut placed into a larger spectrum of zeros."""
    if modes.shape[modes.ndim - len(shape) :] == shape:
        return modes
    lead = modes.shape[: modes.ndim - len(shape)]
    own = modes.shape[modes.ndim - len(shape) :]
    # Updates of a buffer of zeros run at the speed of a copy; padding and concatenating takes three passes.
    spectrum = jnp.zeros((*lead, *shape), modes.dtype)
    for there, here in zip(_corners(shape, cut, real), _corners(own, cut, real), strict=True):
        spectrum = spectrum.at[there].set(modes[here])
    return spectrum


def _extract(spectrum: Array, cut: tuple[int, ...], real: bool) -> Array:
    """Coefficients within the cut of a larger spectrum."""
    ndim = len(cut)
    for axis, k in enumerate(cut):
        place = spectrum.ndim - ndim + axis
        n = spectrum.shape[place]
        if real and axis == ndim - 1:
            spectrum = jax.lax.slice_in_dim(spectrum, 0, k + 1, axis=place)
        elif n > 2 * k + 1:
            low = jax.lax.slice_in_dim(spectrum, 0, k + 1, axis=place)
            high = jax.lax.slice_in_dim(spectrum, n - k, n, axis=place)
            spectrum = jnp.concatenate([low, high], axis=place)
    return spectrum


def _join(first: Array, second: Array, ndim: int) -> Array:
    """All coefficients within the cut of f + i g, of those that are stored of the real fields f and g.

    c(k) = a(k) + i b(k) and c(-k) = conj(a(k) - i b(k)). Where m_last = 0 both k and -k are stored; what is not
    conj(a(-k)) = a(k) there belongs to no real field and is left out, as the real transform does.
    """
    a, b = (
        jnp.concatenate([(x[..., :1] + jnp.conj(_opposite(x[..., :1], ndim))) / 2, x[..., 1:]], -1)
        for x in (first, second)
    )
    rest = jax.lax.complex(a.real + b.imag, b.real - a.imag)[..., 1:]
    return jnp.concatenate([jax.lax.complex(a.real - b.imag, a.imag + b.real), jnp.flip(_opposite(rest, ndim), -1)], -1)


def _split(modes: Array, ndim: int) -> tuple[Array, Array]:
    """The coefficients of f and g of those of f + i g, the inverse of `_join`."""
    cut = modes.shape[-1] // 2
    here = modes[..., : cut + 1]
    there = _opposite(jnp.concatenate([modes[..., :1], jnp.flip(modes[..., cut + 1 :], -1)], -1), ndim)
    first = jax.lax.complex(here.real + there.real, here.imag - there.imag) / 2
    return first, jax.lax.complex(here.imag + there.imag, there.real - here.real) / 2


def _opposite(modes: Array, ndim: int) -> Array:
    """Coefficients at -m of all axes but the last."""
    for axis in range(modes.ndim - ndim, modes.ndim - 1):
        ends = jax.lax.slice_in_dim(modes, 0, 1, axis=axis), jax.lax.slice_in_dim(modes, 1, None, axis=axis)
        modes = jnp.concatenate([ends[0], jnp.flip(ends[1], axis)], axis)
    return modes
