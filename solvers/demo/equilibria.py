"""The part on fixed points: ways to a solution, a pattern at rest, and derivatives of both beside theory."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..fixed_points.anderson import Anderson
from ..fixed_points.broyden import Broyden
from ..fixed_points.doors import fixed_point
from ..fixed_points.picard import Picard
from ..fixed_points.solution import Solution
from ..fixed_points.steady import steady_state
from .page import Chapter, Picture, Row
from .progress import progress

ALBEDO = 0.99
DECAY, FEED, DT = 5.0, 3.0, 0.05
DIFFUSION = np.array([0.003, 0.024])[:, None, None]


def equilibria_and_their_derivatives(folder: Path, quick: bool) -> Chapter:
    """Light in a cloud by several methods; unless quick, a pattern at rest and its answer to more feed."""
    text = (
        "Solutions of x = f(x), differentiated by the implicit function theorem: one linear equation at the solution, "
        "whatever way led there. The first is Chandrasekhar's equation of light that is scattered in a cloud."
    )
    with jax.enable_x64(True), progress("equilibria", 1 if quick else 2) as step:
        rows, pictures = _light(folder / "ways.png", quick)
        step("light in a cloud")
        if not quick:
            text += (
                " The second is the state at which a simulation of two reacting, diffusing substances comes to rest, "
                "found from its time step without simulating until then."
            )
            more_rows, more_pictures = _pattern(folder / "pattern.png", 32, 4000)
            rows, pictures = rows + more_rows, pictures + more_pictures
            step("a pattern at rest")
    return Chapter("Equilibria", text, rows, pictures)


def _light(path: Path, quick: bool) -> tuple[list[Row], list[Picture]]:
    """Solutions with their histories by method, and d mean(H) / d albedo; Chandrasekhar's H has a known mean."""
    cosine = (np.arange(100) + 0.5) / 100
    kernel = cosine[:, None] / (cosine[:, None] + cosine) / 200

    def scatter(light: Array, albedo: Array) -> Array:
        return 1 / (1 - albedo * (kernel @ light))

    def solve(albedo: Array | float, method: Anderson | Broyden | Picard) -> Solution:
        dark = jnp.ones(100)
        return fixed_point(
            scatter, dark, albedo, method=method, rtol=1e-12, atol=0.0, history=True, max_steps=300, stability=0
        )

    def mean(albedo: Array | float) -> tuple[Array, Solution]:
        found = solve(albedo, Anderson(depth=1))
        return found.value.mean(), found

    ways = {type(m).__name__: solve(ALBEDO, m).check() for m in ((Picard(),) if quick else (Picard(), Broyden()))}
    (light, ways["Anderson"]), slope = jax.value_and_grad(mean, has_aux=True)(ALBEDO)
    _draw_ways(path, ways)
    theory, root = 2 / ALBEDO * (1 - (1 - ALBEDO) ** 0.5), (1 - ALBEDO) ** 0.5
    steeper = -theory / ALBEDO + 1 / (ALBEDO * root)
    rows = [
        Row("light, mean of H", f"{light:.10f}", f"{theory:.10f}", f"{light - theory:+.1e}"),
        Row("its slope with the albedo", f"{slope:.8f}", f"{steeper:.8f}", f"{slope - steeper:+.1e}"),
    ]
    return rows, [Picture("ways.png", "Ways to one solution: what is left of x = f(x) after each step.")]


class _Mixture(NamedTuple):
    """u_t = feed + u^2 v - (DECAY + 1) u + source + diffusion, v_t = DECAY u - u^2 v + diffusion, per Fourier mode."""

    source: np.ndarray
    fading: np.ndarray  # rates at which diffusion damps the modes

    def step(self, state: Array, feed: Array | float) -> Array:
        """Reaction explicit, diffusion implicit."""
        u, v = state
        rate = jnp.stack([feed + u**2 * v - (DECAY + 1) * u + self.source, DECAY * u - u**2 * v])
        return jnp.fft.irfft2(jnp.fft.rfft2(state + DT * rate) / (1 + DT * self.fading), s=self.source.shape)

    def inverse(self, r: Array, state: Array, feed: Array | float) -> Array:
        """That of 1 - dstep/dstate for a reaction that is the same everywhere: 2 x 2 blocks of Fourier modes."""
        u, v = state
        gain, loss = 2 * jnp.mean(u * v), jnp.mean(u**2)
        first, second = jnp.fft.rfft2(r) * (1 + DT * self.fading) / DT
        a, b = self.fading[0] + DECAY + 1 - gain, -loss
        c, d = gain - DECAY, self.fading[1] + loss
        solved = jnp.stack([d * first - b * second, a * second - c * first]) / (a * d - b * c)
        return jnp.fft.irfft2(solved, s=self.source.shape)


def _pattern(path: Path, nodes: int, steps: int) -> tuple[list[Row], list[Picture]]:
    """The steady state, its derivative with respect to the feed, and the exact mean of u."""
    x = np.arange(nodes) / nodes
    source = 2.0 * np.exp(-((x[:, None] - 0.35) ** 2 + (x - 0.6) ** 2) / (2 * 0.08**2))
    wavenumber = 2 * np.pi * np.fft.fftfreq(nodes, 1 / nodes)
    squared = wavenumber[:, None] ** 2 + wavenumber[: nodes // 2 + 1] ** 2
    mixture = _Mixture(source, DIFFUSION * squared)
    noise = 1 + 0.01 * jax.random.normal(jax.random.key(0), (2, nodes, nodes))
    start = noise * jnp.array([FEED, DECAY / FEED])[:, None, None]
    start = jax.lax.fori_loop(0, steps, lambda _, state: mixture.step(state, FEED), start)

    def step(state: Array, feed: Array) -> Array:
        return mixture.step(state, feed)

    def inverse(r: Array, state: Array, feed: Array) -> Array:
        return mixture.inverse(r, state, feed)

    def rest(feed: Array) -> tuple[Array, Solution]:
        found = steady_state(step, start, feed, preconditioner=inverse, rtol=1e-9, atol=0.0)
        return found.value, found

    differentiate = jax.jit(lambda feed: jax.jvp(rest, (feed,), (jnp.ones_like(feed),), has_aux=True))
    _, answer, found = differentiate(jnp.asarray(FEED))
    _draw_pattern(path, found.check(), answer)
    # The sum of both equations, averaged over the square: 0 = feed + mean(source) - mean(u).
    exact, mean, more = FEED + float(source.mean()), float(found.value[0].mean()), float(answer[0].mean())
    rows = [
        Row("pattern, mean of u", f"{mean:.10f}", f"{exact:.10f}", f"{mean - exact:+.1e}"),
        Row("its slope with the feed", f"{more:.10f}", "1", f"{more - 1:+.1e}"),
    ]
    return rows, [Picture("pattern.png", "A pattern at rest, fed more in the circle; its answer to feed everywhere.")]


def _draw_ways(path: Path, ways: dict[str, Solution]) -> None:
    from matplotlib.figure import Figure

    page = Figure(figsize=(6.0, 3.8), layout="constrained")
    ax = page.subplots()
    for name, found in ways.items():
        assert found.stats.history is not None
        ax.semilogy(np.asarray(found.stats.history), "o-", markersize=3, label=name)
    ax.set_xlabel("steps")
    ax.set_ylabel("norm of f(x) - x")
    ax.set_xlim(-1, 1 + max(int(found.stats.iterations) for found in ways.values()))
    ax.legend()
    page.savefig(path, dpi=110)


def _draw_pattern(path: Path, found: Solution, answer: Array) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    page = Figure(figsize=(9.0, 3.9), layout="constrained")
    left, right = page.subplots(1, 2)
    limit = float(jnp.max(jnp.abs(answer[0])))
    extent = (0.0, 1.0, 0.0, 1.0)
    for ax, field, title, colours, range_ in (
        (left, found.value[0], "u at rest", "viridis", (None, None)),
        (right, answer[0], "its derivative with the feed", "RdBu_r", (-limit, limit)),
    ):
        image = ax.imshow(
            np.asarray(field),
            origin="lower",
            extent=extent,
            interpolation="bicubic",
            cmap=colours,
            vmin=range_[0],
            vmax=range_[1],
        )
        page.colorbar(image, ax=ax, shrink=0.85)
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
    left.add_patch(Circle((0.6, 0.35), 0.16, fill=False, color="w", linestyle="--"))
    page.savefig(path, dpi=110)
