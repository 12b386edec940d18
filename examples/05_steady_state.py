"""The steady state of a simulation, and its derivative: a pattern of the Brusselator.

    python examples/05_steady_state.py

Two substances react and diffuse on a periodic square, one of them fed at the rate B and in a spot:

    u_t = B + u^2 v - (A + 1) u + source + 0.003 lap u
    v_t = A u - u^2 v + 0.024 lap v

A short simulation makes the pattern; it would take very long to come to rest. `steady_state` takes the same time step
and goes there at once, the faster for a preconditioner: the linear part of the stepper, inverted in Fourier space. The
sum of both equations shows what the mean must be, mean(u) = B + mean(source), so that its derivative with respect to B
is 1, whatever the pattern does. Writes brusselator.png into the folder `output`.
"""

# %% What we need
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {"full": dict(nodes=32, steps=4000), "tiny": dict(nodes=12, steps=4000)}
A, B, DT = 5.0, 3.0, 0.05
DIFFUSION = np.array([0.003, 0.024])[:, None, None]


def main(size: str = "full", out: str | Path = "output") -> sv.Solution:
    """Simulate, find the steady state, differentiate it, draw; returns the solution."""
    with jax.enable_x64(True):
        return steady(SIZES[size]["nodes"], SIZES[size]["steps"], Path(out))


def steady(nodes: int, steps: int, out: Path) -> sv.Solution:
    """The whole story on a grid of nodes x nodes."""
    out.mkdir(parents=True, exist_ok=True)
    x = np.arange(nodes) / nodes
    source = 2.0 * np.exp(-((x[:, None] - 0.35) ** 2 + (x - 0.6) ** 2) / (2 * 0.08**2))
    wavenumber = 2 * np.pi * np.fft.fftfreq(nodes, 1 / nodes)
    decay = DIFFUSION * (wavenumber[:, None] ** 2 + wavenumber[: nodes // 2 + 1] ** 2)

    # %% One time step: reaction explicit, diffusion implicit in Fourier space
    def step(state: jax.Array, feed: jax.Array) -> jax.Array:
        u, v = state
        rate = jnp.stack([feed + u**2 * v - (A + 1) * u + source, A * u - u**2 * v])
        return jnp.fft.irfft2(jnp.fft.rfft2(state + DT * rate) / (1 + DT * decay), s=(nodes, nodes))

    # %% From noise to a pattern that still moves
    noise = 1 + 0.01 * jax.random.normal(jax.random.key(0), (2, nodes, nodes))
    rough = jax.lax.fori_loop(0, steps, lambda _, s: step(s, B), noise * jnp.array([B, A / B])[:, None, None])
    change = float(jnp.linalg.norm(step(rough, B) - rough) / DT / jnp.linalg.norm(rough))
    print(f"after {steps} steps the pattern still changes by {change:.1e} per unit of time")

    # %% What is left of a step, undone as if u and v were the same everywhere: 2 x 2 blocks of Fourier modes
    def inverse(left: jax.Array, state: jax.Array, feed: jax.Array) -> jax.Array:
        gain, loss = 2 * jnp.mean(state[0] * state[1]), jnp.mean(state[0] ** 2)
        p, q = jnp.fft.rfft2(left) * (1 + DT * decay) / DT
        a, b, c, d = decay[0] + A + 1 - gain, -loss, gain - A, decay[1] + loss
        return jnp.fft.irfft2(jnp.stack([d * p - b * q, a * q - c * p]) / (a * d - b * c), s=(nodes, nodes))

    # %% The steady state of this step, a black box to the solver, and its derivative: nothing of the way is stored
    def rest(feed: jax.Array) -> tuple[jax.Array, sv.Solution]:
        found = sv.steady_state(step, rough, feed, preconditioner=inverse, rtol=1e-9, atol=0.0)
        return found.value[0], found

    _, slope, found = jax.jit(lambda b: jax.jvp(rest, (b,), (jnp.ones_like(b),), has_aux=True))(jnp.asarray(B))
    stats = found.check().stats
    print(f"{found.status.name} with {int(stats.evaluations)} steps and {int(stats.products)} products")
    mean, exact = float(found.value[0].mean()), B + source.mean()
    print(f"mean(u) = {mean:.10f}, exact {exact:.10f}, off by {mean - exact:+.1e}")
    print(f"d mean(u) / dB = {float(slope.mean()):.10f}, exact 1")

    # %% Picture: the pattern, and where it answers to more feed
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    limit = float(jnp.max(jnp.abs(slope)))
    for ax, field, title, choice in (
        (left, found.value[0], "steady u; dashed: where it is fed", dict(cmap="viridis")),
        (right, slope, "du / dB, whose mean is 1", dict(cmap="RdBu_r", vmin=-limit, vmax=limit)),
    ):
        image = ax.imshow(field, origin="lower", extent=(0, 1, 0, 1), interpolation="bicubic", **choice)
        figure.colorbar(image, ax=ax, shrink=0.85)
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
    left.contour(x, x, source, levels=[1.0], colors="w", linestyles="--")
    figure.savefig(out / "brusselator.png", dpi=120)
    plt.close(figure)
    return found


if __name__ == "__main__":
    main()
