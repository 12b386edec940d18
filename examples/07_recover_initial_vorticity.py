"""4D-Var: recover the initial vorticity of a flow from a few velocities measured later.

    python examples/07_recover_initial_vorticity.py

The flow is measured at one node in sixteen, at a few times, with noise; nothing is known of its start but the spectrum
that such flows have. The start that explains the measurements is found by L-BFGS with gradients through the whole run.
Writes recovered.png into the folder `output`.
"""

# %% Double precision: L-BFGS compares nearby misfits
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import solvers as sv

SIZES = {"full": dict(nodes=64, steps=60, iterations=60), "tiny": dict(nodes=16, steps=6, iterations=5)}
NOISE = 0.02  # of the greatest speed


def main(size: str = "full", out: str | Path = "output") -> tuple[float, float]:
    """Measure, recover, draw; returns the relative errors of the recovered start and of the best guess without data."""
    with jax.enable_x64(True):
        return recover(**SIZES[size], out=Path(out))


def recover(nodes: int, steps: int, iterations: int, out: Path) -> tuple[float, float]:
    """The whole story on nodes x nodes points of a box of length 2 pi."""
    out.mkdir(parents=True, exist_ok=True)

    # %% The truth, which the recovery never sees
    grid = sv.Grid(shape=(nodes, nodes), spacing=2 * np.pi / nodes)
    flow = sv.PeriodicNavierStokes(grid, viscosity=5e-3)
    peak = 3.0
    truth = flow.random_start(jax.random.key(7), peak_wavenumber=peak, max_speed=1.0)
    dt, every, stride = 0.03, max(steps // 6, 1), 4

    # %% What is measured: velocities at every fourth node along both axes, six times
    def measure(start: sv.FlowState) -> jax.Array:
        def look(state: sv.FlowState) -> jax.Array:
            return flow.velocity(state)[:, ::stride, ::stride]

        return sv.simulate(flow, start, steps=steps, dt=dt, observe=look, every=every).observed

    exact = measure(truth)
    data = exact + NOISE * jax.random.normal(jax.random.key(1), exact.shape)

    # %% What is known before: vorticity is a sum of waves with the amplitudes of the spectrum
    k = jnp.sqrt(flow.modes.squared("float64"))
    amplitude = (k / peak) ** 2 * jnp.exp(-((k / peak) ** 2))
    scale = 1 / jnp.sqrt(flow.modes.inner(amplitude + 0j, amplitude + 0j)) * jnp.sqrt(2 * flow.enstrophy(truth))

    def start_of(x: jax.Array) -> sv.FlowState:
        white = flow.modes.to_modes(x) * nodes
        return flow.from_vorticity(flow.modes.to_field(scale * amplitude * white))

    # %% Misfit of the data, in units of the noise, and of the prior; the gradient is one sweep back through the run
    @jax.jit
    @jax.value_and_grad
    def misfit(x: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((measure(start_of(x)) - data) ** 2) / NOISE**2 + 0.5 * jnp.sum(x**2)

    def of_vector(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = misfit(jnp.asarray(x).reshape(grid.shape))
        return float(value), np.asarray(gradient).ravel()

    found = minimize(of_vector, np.zeros(nodes**2), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    start = start_of(jnp.asarray(found.x).reshape(grid.shape))
    print(f"misfit per datum {2 * found.fun / data.size:.2f} after {found.nit} iterations")

    # %% How good: against the truth, and against knowing nothing
    wanted, ours = (np.asarray(flow.vorticity(s)) for s in (truth, start))
    error = float(np.linalg.norm(ours - wanted) / np.linalg.norm(wanted))
    print(f"relative error of the initial vorticity {error:.2f} (1 without data)")

    # %% Picture
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
    sv.plot.box(wanted, grid, ax=axes[0]).set_title("true initial vorticity")
    last = np.asarray(data[-1])
    axes[1].quiver(*np.meshgrid(*(a[::stride] for a in grid.axes()), indexing="ij"), *last)
    axes[1].set(title=f"measured velocities, last of {len(data)} times", xlabel="x", ylabel="y", aspect="equal")
    axes[1].set(xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
    sv.plot.box(ours, grid, ax=axes[2]).set_title(f"recovered, error {error:.0%}")
    axes[2].images[0].set_clim(axes[0].images[0].get_clim())
    figure.savefig(out / "recovered.png", dpi=110)
    plt.close(figure)
    return error, 1.0


if __name__ == "__main__":
    main()
