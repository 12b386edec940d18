"""The part on samples: a curved density by Langevin dynamics, its diagnostics, and a run that is interrupted."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from .. import plot
from ..sampling.chains import Samples, sample
from ..sampling.diagnostics import diagnose
from ..sampling.mala import Mala
from .page import Chapter, Picture, Row
from .progress import progress

BEND, WIDTH = 0.03, 5.0


def banana(position: jax.Array) -> jax.Array:
    """x ~ N(0, WIDTH^2), y ~ N(BEND (x^2 - WIDTH^2), 1)."""
    x, y = position
    return -0.5 * (x / WIDTH) ** 2 - 0.5 * (y - BEND * (x**2 - WIDTH**2)) ** 2


def samples_and_their_worth(folder: Path, quick: bool) -> Chapter:
    """Four chains on a banana with exact moments, diagnostics, and an interrupted run that is the same run."""
    steps = 4000 if quick else 20_000
    with progress("samples", 3) as step:
        whole = _draw(steps)
        step("four chains")
        with tempfile.TemporaryDirectory() as name:
            _draw(steps // 2, Path(name) / "run.ckpt")
            resumed = _draw(steps, Path(name) / "run.ckpt")
            differ = float(np.abs(resumed.draws - whole.draws).max())
        step("the same in two halves")
        _pictures(folder, whole)
        step("their pictures")
    numbers = whole.summary().numbers["x"]
    squares = diagnose(np.asarray(whole.draws) ** 2).numbers["x"]
    rows = [
        Row(f"mean of {n}", f"{m:.3f}", f"{t:.3f}", f"{(m - t) / e:+.1f} standard errors")
        for names, found, exact in (
            (("x", "y"), numbers, (0.0, 0.0)),
            (("x^2", "y^2"), squares, (WIDTH**2, 1 + 2 * BEND**2 * WIDTH**4)),
        )
        for n, m, t, e in zip(names, found.mean, exact, found.mcse, strict=True)
    ]
    rows += [
        Row("acceptance after the warm-up", f"{whole.acceptance.mean():.3f}", "0.574", "the target"),
        Row("largest R-hat", f"{np.max(numbers.r_hat):.4f}", "1", f"{np.max(numbers.r_hat) - 1:.1e}"),
        Row("interrupted and resumed", f"{differ:g}", "0", "bit for bit"),
    ]
    return Chapter(
        "Samples",
        "Metropolis-adjusted Langevin dynamics on a banana-shaped density whose moments are known. A warm-up finds the "
        "step and the scales; R-hat and the effective sample size tell what the draws are worth. A run that is "
        "interrupted and resumed from its checkpoint is the same run, to the last bit.",
        rows,
        [
            Picture("traces.png", "Four chains from four places: they cannot be told apart."),
            Picture("marginals.png", "Their distributions, one outline per chain; dashed: the exact means."),
        ],
    )


def _draw(steps: int, checkpoint: Path | None = None) -> Samples:
    starts = jnp.array([[-8.0, 2.0], [8.0, 2.0], [0.0, -4.0], [0.0, 4.0]])
    kernel = Mala(banana, step=0.3)
    # Chunks of one size, so that all runs share one compiled program.
    run = sample(
        kernel, jax.random.key(4), starts, steps=steps, warmup=500, checkpoint=checkpoint, chunk=1000, every=1000
    )
    return run.check()


def _pictures(folder: Path, found: Samples) -> None:
    from matplotlib import pyplot

    truth = np.zeros(2)
    axes = plot.traces(np.asarray(found.draws)[:, :1500], truth=truth)
    axes[0].figure.savefig(folder / "traces.png", dpi=110)
    axes = plot.marginals(found, truth=truth)
    axes[0].figure.savefig(folder / "marginals.png", dpi=110)
    pyplot.close("all")
