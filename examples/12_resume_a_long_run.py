"""Resume a long run: a million draws in constant memory, killed with -9 in the middle, and nothing lost.

    python examples/12_resume_a_long_run.py

The same call runs twice: once in a process that is killed, once more to the end. Writes resume.png into the folder
`output`.
"""

# %% What we need
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {"full": dict(steps=250_000, seconds=4.0), "tiny": dict(steps=2000, seconds=0.0)}


# %% A banana: x ~ N(0, 10^2), y ~ N(0.03 (x^2 - 100), 1). The exact means are 0, the exact variances 100 and 19
def banana(position: jax.Array) -> jax.Array:
    """Log density of a curved ridge."""
    x, y = position
    return -0.5 * (x / 10.0) ** 2 - 0.5 * (y - 0.03 * (x**2 - 100.0)) ** 2


# %% The call: sinks instead of draws, and a file. Calling it again with the same arguments resumes
def chains(steps: int, folder: Path, progress: object = True) -> sv.Samples:
    """Four chains whose statistics need the same memory however long they are."""
    sinks = {"moments": sv.Moments(), "quantiles": sv.Quantiles((0.05, 0.5, 0.95)), "means": sv.BatchMeans()}
    kernel = sv.Mala(banana, step=0.5)
    starts = jnp.zeros((4, 2))
    return sv.sample(
        kernel, jax.random.key(0), starts, steps=steps, sinks=sinks, checkpoint=folder / "banana.ckpt",
        every=max(steps // 50, 1), progress=progress,
    )  # fmt: skip


def die_halfway(steps: int, folder: Path) -> None:
    """What a power cut does: kill -9 of this very process, after half of the steps."""

    def watch(done: int, steps: int) -> None:
        if done >= steps // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    chains(steps, folder, watch)


def main(size: str = "full", out: str | Path = "output") -> sv.Samples:
    """Kill a run, resume it, compare it with a run that nobody killed."""
    out, steps = Path(out), SIZES[size]["steps"]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        # %% First half, in another process, which dies
        command = [sys.executable, __file__, "--die", str(steps), name]
        environment = {**os.environ, "JAX_ENABLE_X64": str(int(jax.config.read("jax_enable_x64")))}
        died = subprocess.run(command, env=environment, check=False)
        print(f"killed by signal {-died.returncode}; left behind: {sorted(p.name for p in folder.iterdir())}")

        # %% Second half: the same call
        seen: list[int] = []
        begin = time.perf_counter()
        run = chains(steps, folder, lambda done, steps: seen.append(done))
        print(f"resumed at step {seen[0]} of {steps}, done after {time.perf_counter() - begin:.1f} s more")

        # %% Nobody can tell the difference, not by one bit
        (folder / "other").mkdir()
        whole = chains(steps, folder / "other")
        same = np.array_equal(run.positions, whole.positions)
        same &= np.array_equal(run.sinks["moments"].mean, whole.sinks["moments"].mean)
        print(f"equal to a run without interruption, bit for bit: {same}")
        assert same

    # %% What the sinks know
    moments, means, quantiles = (run.sinks[name] for name in ("moments", "means", "quantiles"))
    print(f"mean {moments.mean.round(2)} +- {means.mcse.round(2)}, exact [0 0]")
    print(f"variance {moments.variance.round(1)}, exact [100 19]")
    print(f"effective sample size {means.ess.round()}, R-hat {means.r_hat.round(3)}, of {moments.count} draws")

    # %% The picture: quantiles of the sink beside exact ones
    exact = np.array([[-16.449, 0.0, 16.449], [-4.2, -1.9, 8.6]])
    figure, ax = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for i, label in enumerate("xy"):
        ax.plot(quantiles.values[:, i], [0.05, 0.5, 0.95], "o-", label=f"{label}, sink")
    ax.plot(exact[0], [0.05, 0.5, 0.95], "k+", markersize=14, label="x, exact")
    ax.set(xlabel="value", ylabel="probability", title="quantiles in constant memory")
    ax.legend(frameon=False)
    figure.savefig(out / "resume.png", dpi=110)
    plt.close(figure)
    return run


if __name__ == "__main__":
    if sys.argv[1:2] == ["--die"]:
        die_halfway(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
