"""Reaction, diffusion and patterns in periodic boxes: fronts, phases, spots and stripes."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..core.grid import Grid
from .semilinear import Semilinear, Symbols, coefficient


def FisherKPP(
    grid: Grid, diffusivity: Any, rate: Any = 1.0, *, stepper: str = "etdrk4", dealias: str = "2/3"
) -> Semilinear:
    r"""The equation of Fisher, Kolmogorov, Petrovsky and Piskunov, u_t = D lap u + r u (1 - u): a population spreads.

    A front invades the empty state u = 0 at the speed 2 sqrt(r D); the state u = 1 is stable.

    Args:
        grid: nodes of one period.
        diffusivity: D > 0, a number; differentiable.
        rate: r > 0, a number; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`.

    Raises:
        ValueError: if a coefficient is not a positive number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> grid = sv.Grid(shape=32, spacing=1.0)
        >>> run = sv.simulate(sv.FisherKPP(grid, 1.0), jnp.full(32, 0.1), steps=20, dt=0.1).check()
        >>> round(float(run.final[0]), 4), round(float(1 / (1 + 9 * jnp.exp(-2.0))), 4)
        (0.4509, 0.4509)

    Reference:
        R. A. Fisher, Annals of Eugenics 7 (1937), 355.
    """
    parameters = {
        "diffusivity": coefficient(diffusivity, "diffusivity", positive=True),
        "rate": coefficient(rate, "rate", positive=True),
    }
    return Semilinear(grid, _growing, _crowding, parameters, stepper=stepper, dealias=dealias)


def AllenCahn(grid: Grid, width: Any, rate: Any = 1.0, *, stepper: str = "etdrk4", dealias: str = "2/3") -> Semilinear:
    r"""The Allen-Cahn equation u_t = r (eps^2 lap u + u - u^3): two phases u = -1 and 1 with moving interfaces.

    The gradient flow of the energy E = mean of eps^2 |grad u|^2 / 2 + (1 - u^2)^2 / 4, which never increases. An
    interface is tanh(x / (sqrt(2) eps)), and needs a few nodes per eps.

    Args:
        grid: nodes of one period.
        width: eps > 0, length; differentiable.
        rate: r > 0, 1/time; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`; "1/2" and "2" keep the cubic product free of aliasing.

    Raises:
        ValueError: if a coefficient is not a positive number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> grid = sv.Grid(shape=32, spacing=1.0)
        >>> run = sv.simulate(sv.AllenCahn(grid, 1.0), jnp.full(32, 0.1), steps=20, dt=0.1).check()
        >>> round(float(run.final[0]), 4), round(float(1 / jnp.sqrt(1 + 99 * jnp.exp(-4.0))), 4)
        (0.5961, 0.5961)

    Reference:
        S. M. Allen and J. W. Cahn, Acta Metallurgica 27 (1979), 1085.
    """
    parameters = {"width": coefficient(width, "width", positive=True), "rate": coefficient(rate, "rate", positive=True)}
    return Semilinear(grid, _ordering, _saturating, parameters, stepper=stepper, dealias=dealias)


def CahnHilliard(
    grid: Grid, width: Any, mobility: Any = 1.0, *, stepper: str = "etdrk4", dealias: str = "2/3"
) -> Semilinear:
    r"""The Cahn-Hilliard equation u_t = M lap(u^3 - u - eps^2 lap u): a mixture separates, and its mean is conserved.

    The energy is that of `AllenCahn` and never increases. Modes below 1 / eps grow, fastest at k = 1 / (sqrt(2) eps)
    with the rate M / (4 eps^2).

    Args:
        grid: nodes of one period.
        width: eps > 0, length; differentiable.
        mobility: M > 0, length^2/time; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`; "1/2" and "2" keep the cubic product free of aliasing.

    Raises:
        ValueError: if a coefficient is not a positive number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=32, spacing=2 * np.pi / 32)
        >>> start = 1e-3 * jnp.cos(grid.axes()[0])
        >>> run = sv.simulate(sv.CahnHilliard(grid, 0.5), start, steps=20, dt=0.1).check()
        >>> round(float(run.final[0] / start[0]), 3), round(float(np.exp((1 - 0.5**2) * 2)), 3)
        (4.482, 4.482)

    Reference:
        J. W. Cahn and J. E. Hilliard, Journal of Chemical Physics 28 (1958), 258.
    """
    parameters = {
        "width": coefficient(width, "width", positive=True),
        "mobility": coefficient(mobility, "mobility", positive=True),
    }
    return Semilinear(grid, _separating, _diffusing_cube, parameters, stepper=stepper, dealias=dealias)


def GrayScott(
    grid: Grid,
    diffusivity: Any = (2e-5, 1e-5),
    feed: Any = 0.04,
    kill: Any = 0.06,
    *,
    stepper: str = "etdrk4",
    dealias: str = "2/3",
) -> Semilinear:
    r"""The Gray-Scott model of two chemicals: spots that divide, stripes, chaos.

        u_t = D_u lap u - u v^2 + F (1 - u)
        v_t = D_v lap v + u v^2 - (F + k) v

    The state holds u and v as its two channels, shape (2, *grid.shape). (1, 0) is a stable fixed state.

    Args:
        grid: nodes of one period.
        diffusivity: (D_u, D_v), positive; differentiable. The defaults are for a box of length 2.5.
        feed: F > 0, 1/time; differentiable.
        kill: k > 0, 1/time; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`; "1/2" and "2" keep the cubic product free of aliasing.

    Raises:
        ValueError: if a coefficient is not positive, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> grid = sv.Grid(shape=(32, 32), spacing=2.5 / 32)
        >>> empty = jnp.stack([jnp.ones((32, 32)), jnp.zeros((32, 32))])
        >>> run = sv.simulate(sv.GrayScott(grid), empty, steps=10, dt=1.0).check()
        >>> bool(jnp.max(jnp.abs(run.final - empty)) < 1e-6)
        True

    Reference:
        P. Gray and S. K. Scott, Chemical Engineering Science 39 (1984), 1087; J. E. Pearson, Science 261 (1993), 189.
    """
    parameters = {
        "diffusivity": coefficient(diffusivity, "diffusivity", (2,), positive=True),
        "feed": coefficient(feed, "feed", positive=True),
        "kill": coefficient(kill, "kill", positive=True),
    }
    return Semilinear(grid, _fading, _autocatalysis, parameters, stepper=stepper, dealias=dealias, channels=2)


def SwiftHohenberg(
    grid: Grid,
    growth: Any,
    wavenumber: Any = 1.0,
    quadratic: Any = 0.0,
    *,
    stepper: str = "etdrk4",
    dealias: str = "2/3",
) -> Semilinear:
    r"""The Swift-Hohenberg equation u_t = r u - (k_0^2 + lap)^2 u + g u^2 - u^3: stripes, and with g hexagons.

    A small wave of the wavenumber k grows with the rate r - (k_0^2 - k^2)^2.

    Args:
        grid: nodes of one period.
        growth: r, a number; differentiable.
        wavenumber: k_0 > 0, 1/length, of the pattern; differentiable.
        quadratic: g, a number; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`; "1/2" and "2" keep the cubic product free of aliasing.

    Raises:
        ValueError: if a coefficient is not one finite number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=32, spacing=2 * np.pi / 32)
        >>> start = 1e-3 * jnp.cos(grid.axes()[0])
        >>> run = sv.simulate(sv.SwiftHohenberg(grid, 0.3), start, steps=20, dt=0.1).check()
        >>> round(float(run.final[0] / start[0]), 3), round(float(np.exp(0.3 * 2)), 3)
        (1.822, 1.822)

    Reference:
        J. Swift and P. C. Hohenberg, Physical Review A 15 (1977), 319.
    """
    parameters = {
        "growth": coefficient(growth, "growth"),
        "wavenumber": coefficient(wavenumber, "wavenumber", positive=True),
        "quadratic": coefficient(quadratic, "quadratic"),
    }
    return Semilinear(grid, _selecting, _quadratic_and_cubic, parameters, stepper=stepper, dealias=dealias)


# ---- Symbols and products


def _growing(d: Symbols, p: dict) -> Array:
    return p["diffusivity"] * d.laplacian + p["rate"]


def _crowding(u: Array, d: Symbols, p: dict) -> Array:
    return -p["rate"] * d.modes(d.field(u) ** 2)


def _ordering(d: Symbols, p: dict) -> Array:
    return p["rate"] * (p["width"] ** 2 * d.laplacian + 1)


def _saturating(u: Array, d: Symbols, p: dict) -> Array:
    return -p["rate"] * d.modes(d.field(u) ** 3)


def _separating(d: Symbols, p: dict) -> Array:
    return -p["mobility"] * d.laplacian * (1 + p["width"] ** 2 * d.laplacian)


def _diffusing_cube(u: Array, d: Symbols, p: dict) -> Array:
    return p["mobility"] * d.laplacian * d.modes(d.field(u) ** 3)


def _fading(d: Symbols, p: dict) -> Array:
    both = [p["diffusivity"][i] * d.laplacian for i in (0, 1)]
    return jnp.stack([both[0] - p["feed"], both[1] - p["feed"] - p["kill"]])


def _autocatalysis(u: Array, d: Symbols, p: dict) -> Array:
    substrate, catalyst = d.field(u)
    made = substrate * catalyst**2
    return d.modes(jnp.stack([p["feed"] - made, made]))


def _selecting(d: Symbols, p: dict) -> Array:
    return p["growth"] - (p["wavenumber"] ** 2 + d.laplacian) ** 2


def _quadratic_and_cubic(u: Array, d: Symbols, p: dict) -> Array:
    field = d.field(u)
    return d.modes(p["quadratic"] * field**2 - field**3)
