"""Nonlinear transport in periodic boxes: Burgers, Korteweg-de Vries, Kuramoto-Sivashinsky, Schroedinger."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..core.grid import Grid, check_grid
from .semilinear import Semilinear, Symbols, coefficient


def Burgers(
    grid: Grid, viscosity: Any, *, scalar: bool = False, stepper: str = "etdrk4", dealias: str = "2/3"
) -> Semilinear:
    r"""Burgers' equation u_t + (u . grad) u = nu lap u: waves that steepen to fronts of the width nu / jump.

    On one axis u is a field of shape `grid.shape`; on more it is a velocity of shape (axes, *grid.shape), or with
    `scalar` one field that is carried along the diagonal, u_t + sum_i d(u^2 / 2) / dx_i = nu lap u. A front needs
    several nodes across; there is no shock capturing.

    Args:
        grid: nodes of one period.
        viscosity: nu > 0, a number; differentiable.
        scalar: whether there is one field on more than one axis.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`; "2/3" and "3/2" keep the products free of aliasing.

    Raises:
        ValueError: if the viscosity is not a positive number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=64, spacing=2 * np.pi / 64)
        >>> run = sv.simulate(sv.Burgers(grid, 0.1), jnp.sin(grid.axes()[0]), steps=50, dt=0.02).check()
        >>> round(float(jnp.max(run.final)), 3)
        0.901

    Reference:
        J. M. Burgers, Advances in Applied Mechanics 1 (1948), 171; E. Hopf, Communications on Pure and Applied
        Mathematics 3 (1950), 201.
    """
    parameters = {"viscosity": coefficient(viscosity, "viscosity", positive=True)}
    vector = check_grid(grid).ndim > 1 and not scalar
    return Semilinear(
        grid,
        _viscous,
        _carried_along if vector else _steepening,
        parameters,
        stepper=stepper,
        dealias=dealias,
        channels=grid.ndim if vector else None,
    )


def KortewegDeVries(
    grid: Grid, steepening: Any = 6.0, dispersion: Any = 1.0, *, stepper: str = "etdrk4", dealias: str = "2/3"
) -> Semilinear:
    r"""The Korteweg-de Vries equation u_t + a u u_x + b lap u_x = 0, long waves on shallow water; solitons.

    With a = 6, b = 1 on one axis u = (c/2) sech^2(sqrt(c) (x - c t) / 2) is a soliton of the speed c. On more axes it
    is the equation of Zakharov and Kuznetsov. Mean and mean square are conserved.

    Args:
        grid: nodes of one period.
        steepening: a, a number; differentiable.
        dispersion: b, a number; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`.

    Raises:
        ValueError: if a coefficient is not one finite number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> grid = sv.Grid(shape=128, spacing=40 / 128, origin=-20.0)
        >>> def soliton(x):
        ...     return 0.5 / jnp.cosh(0.5 * x) ** 2
        >>> run = sv.simulate(sv.KortewegDeVries(grid), soliton(grid.axes()[0]), steps=200, dt=0.02).check()
        >>> bool(jnp.max(jnp.abs(run.final - soliton(grid.axes()[0] - 4.0))) < 1e-5)
        True

    Reference:
        D. J. Korteweg and G. de Vries, Philosophical Magazine 39 (1895), 422; V. E. Zakharov and E. A. Kuznetsov,
        Soviet Physics JETP 39 (1974), 285.
    """
    parameters = {
        "steepening": coefficient(steepening, "steepening"),
        "dispersion": coefficient(dispersion, "dispersion"),
    }
    return Semilinear(grid, _korteweg, _steepening_along_x, parameters, stepper=stepper, dealias=dealias)


def KuramotoSivashinsky(
    grid: Grid,
    form: str = "conservative",
    growth: Any = 1.0,
    damping: Any = 1.0,
    *,
    stepper: str = "etdrk4",
    dealias: str = "2/3",
) -> Semilinear:
    r"""The Kuramoto-Sivashinsky equation: waves grow, short ones are damped, and the middle is chaos.

        conservative:  u_t + u u_x         + g u_xx  + d u_xxxx    = 0    (one axis)
        combustion:    h_t + |grad h|^2 / 2 + g lap h + d lap^2 h  = 0    (any number of axes)

    u = h_x solves the first if h solves the second. The mean of u is conserved, that of h drifts down. On a box of the
    length L the number of growing modes is L / (2 pi) with g = d = 1; chaos sets in near L = 20. Nearby states part as
    exp(0.05 to 0.1 t), so that gradients over more than a few hundred units of time are large and useless.

    Args:
        grid: nodes of one period.
        form: "conservative" or "combustion".
        growth: g, a number; differentiable.
        damping: d > 0, a number; differentiable.
        stepper: "etdrk4" or "etdrk2".
        dealias: see `Modes`.

    Raises:
        ValueError: for another form, the conservative form on more than one axis, coefficients that are not numbers.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=128, spacing=32 * np.pi / 128)
        >>> x = grid.axes()[0]
        >>> start = jnp.cos(x / 16) * (1 + jnp.sin(x / 16))
        >>> run = sv.simulate(sv.KuramotoSivashinsky(grid), start, steps=400, dt=0.25).check()
        >>> bool(1 < jnp.max(jnp.abs(run.final)) < 4)
        True

    Reference:
        Y. Kuramoto and T. Tsuzuki, Progress of Theoretical Physics 55 (1976), 356; G. I. Sivashinsky, Acta Astronautica
        4 (1977), 1177.
    """
    terms = {"conservative": _steepening_along_x, "combustion": _slope_squared}
    if form not in terms:
        raise ValueError(f'`form` must be "conservative" or "combustion", got {form!r}.')
    if form == "conservative" and check_grid(grid).ndim > 1:
        raise ValueError(f'The conservative form has one axis, the grid has {grid.ndim}; take form="combustion".')
    parameters = {
        "growth": coefficient(growth, "growth"),
        "damping": coefficient(damping, "damping", positive=True),
        "steepening": jnp.ones(()),
    }
    return Semilinear(grid, _kuramoto, terms[form], parameters, stepper=stepper, dealias=dealias)


def NonlinearSchroedinger(
    grid: Grid, nonlinearity: Any = 1.0, *, stepper: str = "etdrk4", dealias: str = "2/3"
) -> Semilinear:
    r"""The nonlinear Schroedinger equation i psi_t + lap psi / 2 + kappa |psi|^2 psi = 0; complex states.

    Focusing for kappa > 0: on one axis psi = A sech(sqrt(kappa) A x) exp(i kappa A^2 t / 2) stands still, on more axes
    strong fields collapse. Defocusing for kappa < 0. The norm of psi is conserved by the equation, and by the time
    stepping up to its error. Free waves (kappa = 0) are exact to round-off.

    Args:
        grid: nodes of one period.
        nonlinearity: kappa, a number; differentiable.
        stepper: "etdrk4"; "etdrk2" needs far smaller steps, since nothing damps.
        dealias: see `Modes`; "1/2" and "2" keep the cubic product free of aliasing.

    Raises:
        ValueError: if the coefficient is not one finite number; for a real state.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> grid = sv.Grid(shape=128, spacing=30 / 128, origin=-15.0)
        >>> soliton = 1 / jnp.cosh(grid.axes()[0]) + 0j
        >>> run = sv.simulate(sv.NonlinearSchroedinger(grid), soliton, steps=100, dt=0.02).check()
        >>> bool(jnp.max(jnp.abs(run.final - soliton * jnp.exp(1j))) < 1e-5)
        True

    Reference:
        V. E. Zakharov and A. B. Shabat, Soviet Physics JETP 34 (1972), 62.
    """
    parameters = {"nonlinearity": coefficient(nonlinearity, "nonlinearity")}
    return Semilinear(grid, _free_wave, _self_focusing, parameters, stepper=stepper, dealias=dealias, real=False)


# ---- Symbols and products


def _viscous(d: Symbols, p: dict) -> Array:
    return p["viscosity"] * d.laplacian


def _steepening(u: Array, d: Symbols, p: dict) -> Array:
    square = d.modes(d.field(u) ** 2)
    slope = d.along(0)
    for axis in range(1, d.space.ndim):
        slope = slope + d.along(axis)
    return -0.5 * slope * square


def _carried_along(u: Array, d: Symbols, p: dict) -> Array:
    velocity, total = d.field(u), jnp.zeros(())
    for axis in range(d.space.ndim):
        total = total + velocity[axis] * d.field(d.along(axis) * u)
    return -d.modes(total)


def _korteweg(d: Symbols, p: dict) -> Array:
    return -p["dispersion"] * d.along(0) * d.laplacian


def _steepening_along_x(u: Array, d: Symbols, p: dict) -> Array:
    return -0.5 * p["steepening"] * d.along(0) * d.modes(d.field(u) ** 2)


def _kuramoto(d: Symbols, p: dict) -> Array:
    return -p["growth"] * d.laplacian - p["damping"] * d.laplacian**2


def _slope_squared(u: Array, d: Symbols, p: dict) -> Array:
    slopes = jnp.stack([d.field(d.along(axis) * u) for axis in range(d.space.ndim)])
    return -0.5 * p["steepening"] * d.modes(jnp.sum(slopes**2, axis=0))


def _free_wave(d: Symbols, p: dict) -> Array:
    return 0.5j * d.laplacian


def _self_focusing(u: Array, d: Symbols, p: dict) -> Array:
    psi = d.field(u)
    return 1j * p["nonlinearity"] * d.modes((psi.real**2 + psi.imag**2) * psi)
