"""Forces that keep a periodic flow going."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, is_known
from ..core.fourier import Modes
from ..core.grid import Grid
from .periodic_checks import real_number


class Kolmogorov(eqx.Module):
    """Kolmogorov forcing, a force along the first axis that varies along the second: f = a sin(2 pi n y / L_y) e_x.

    Its laminar answer is u = f / (nu k^2 + drag), k = 2 pi n / L_y, with nu the viscosity; that becomes unstable to
    long waves along x in long boxes.

    Args:
        waves: n, number of waves in the box. On a box of length 2 pi this is the wavenumber.
        amplitude: a, differentiable.

    Raises:
        ValueError: if there is no wave, or the amplitude is not one finite real number. In `PeriodicNavierStokes`: if
            the flow does not keep the wave.

    Example:
        >>> import solvers as sv, numpy as np
        >>> grid = sv.Grid(shape=(32, 32), spacing=2 * np.pi / 32)
        >>> flow = sv.PeriodicNavierStokes(grid, viscosity=0.1, forcing=sv.Kolmogorov(waves=2), drag=0.1)
        >>> run = sv.simulate(flow, flow.at_rest(), steps=400, dt=0.05).check()
        >>> float(abs(flow.velocity(run.final)).max().round(3))                # 1 / (0.1 * 4 + 0.1)
        2.0

    Reference:
        L. D. Meshalkin and Ya. G. Sinai, Journal of Applied Mathematics and Mechanics 25 (1961), 1700.
    """

    amplitude: Array
    waves: int = eqx.field(static=True)

    def __init__(self, waves: int = 4, amplitude: Any = 1.0):
        if isinstance(waves, bool) or not isinstance(waves, (int, np.integer)) or waves < 1:
            raise ValueError(f"`waves` must be a whole number of waves in the box, at least 1, got {waves!r}.")
        self.waves = int(waves)
        self.amplitude = real_number(amplitude, "amplitude")

    def body_force(self, grid: Grid) -> Array:
        """The force on the nodes, shape (axes, *grid.shape)."""
        if self.waves > (grid.shape[1] - 1) // 2:
            raise ValueError(
                f"Kolmogorov(waves={self.waves}) needs more than {2 * self.waves} nodes along the second axis, "
                f"there are {grid.shape[1]}."
            )
        phase = 2 * np.pi * self.waves * np.arange(grid.shape[1]) / grid.shape[1]
        profile = np.sin(phase).reshape([-1 if axis == 1 else 1 for axis in range(grid.ndim)])
        force = np.zeros((grid.ndim, *grid.shape))
        force[0] = profile
        return self.amplitude * jnp.asarray(force.astype(self.amplitude.dtype))


class LinearForcing(eqx.Module):
    """Linear forcing f = a (u - mean(u)): every fluctuation is driven at the same rate, integrated exactly.

    Keeps homogeneous turbulence going in physical space; the energy then balances at 2 a E = dissipation.

    Args:
        rate: a, 1/s, differentiable.

    Raises:
        ValueError: if the rate is not one finite real number.

    Example:
        >>> import solvers as sv, numpy as np
        >>> grid = sv.Grid(shape=(16, 16), spacing=2 * np.pi / 16)
        >>> flow = sv.PeriodicNavierStokes(grid, viscosity=0.1, forcing=sv.LinearForcing(0.2))
        >>> start = flow.taylor_green()                                        # decays at 2 nu, grows at 0.2
        >>> run = sv.simulate(flow, start, steps=100, dt=0.01).check()
        >>> bool(abs(flow.energy(run.final) - flow.energy(start)) < 1e-6)
        True

    Reference:
        T. S. Lundgren, CTR Annual Research Briefs (2003), 461.
    """

    rate: Array

    def __init__(self, rate: Any):
        self.rate = real_number(rate, "rate")


def check_forcing(forcing: Any, modes: Modes) -> tuple:
    """Forcing as a tuple of arrays and structs, checked; arrays are body forces of shape (axes, *grid.shape)."""
    if forcing is None:
        return ()
    checked, grid = [], modes.grid
    shape = (grid.ndim, *grid.shape)
    for entry in forcing if isinstance(forcing, (tuple, list)) else (forcing,):
        if isinstance(entry, type):
            raise TypeError(
                f"A forcing must be a value, got the class {entry.__name__}: call it, {entry.__name__}(...)."
            )
        if isinstance(entry, LinearForcing) or hasattr(entry, "body_force") or callable(entry):
            if isinstance(entry, Kolmogorov) and entry.waves > modes.cut[1]:
                raise ValueError(
                    f"Kolmogorov(waves={entry.waves}) lies above the cut: of {grid.shape[1]} nodes along the second "
                    f'axis dealias="{modes.dealias}" keeps {modes.cut[1]} waves. Take more nodes, or fewer waves.'
                )
            # What does not fit the grid is told now.
            getattr(entry, "body_force", lambda _: None)(grid)
            checked.append(entry)
            continue
        if np.ndim(entry) != grid.ndim + 1 or np.shape(entry) != shape:
            raise ValueError(
                f"A forcing given as an array is a body force on the nodes and must have the shape {shape} (axes, "
                f"*grid.shape), got {np.shape(entry)}. Other forcings: Kolmogorov, LinearForcing, a function of the "
                "velocity, or a tuple of these."
            )
        if (is_known(entry) and np.iscomplexobj(entry)) or jnp.iscomplexobj(entry):
            raise ValueError("A forcing given as an array is a real body force on the nodes, got complex numbers.")
        checked.append(as_field(entry, "forcing", shape))
    return tuple(checked)
