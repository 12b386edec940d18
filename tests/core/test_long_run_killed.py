"""Processes that are killed lose nothing; memory does not grow."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import solvers as sv

PROGRAM = """
import os, signal, sys, time
import numpy as np

STEPS, WARMUP = 4000, 300

def tell(done, steps):
    print(done, flush=True)
    if sys.argv[2] == "suicide":
        if done == WARMUP + 400:
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(float(sys.argv[2]))

def chains(steps=STEPS, **choices):
    import jax, jax.numpy as jnp
    import solvers as sv

    def logdensity(x):
        return -0.5 * jnp.sum(x**2) - 0.1 * jnp.sum(x**4)

    kernel = sv.Mala(logdensity, step=0.3)
    run = sv.sample(kernel, jax.random.key(1), jnp.ones((3, 4)), steps=steps, warmup=WARMUP, **choices)
    return dict(draws=run.draws, mean=run.acceptance, step=run.kernel.step_size, **run.statistics)

if len(sys.argv) == 3 and __name__ == "__main__":
    folder = sys.argv[1]
    choices = dict(steps=1000, every=400) if sys.argv[2] == "suicide" else dict(every=20, chunk=10)
    np.savez(folder + "/done.npz", **chains(checkpoint=folder + "/run.ckpt", progress=tell, **choices))
"""


def program(folder, pause):
    arguments = [sys.executable, "-c", PROGRAM, str(folder), str(pause)]
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


def finish(folder):
    """The result of a run that is not killed, and the step at which it began."""
    with program(folder, 0.0) as process:
        told = process.stdout.read().split()
        assert process.wait(timeout=300) == 0
    return dict(np.load(folder / "done.npz")), int(told[0])


def killed(folder, lines, seconds):
    """Kill -9 so many seconds after so many signs of life; returns the last step that was told."""
    with program(folder, 0.004) as process:
        told = [process.stdout.readline() for _ in range(lines)]
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        assert process.wait(timeout=300) == -signal.SIGKILL
    return int(told[-1])


def compare(found, expected):
    for name, x in expected.items():
        assert found[name].dtype == x.dtype and found[name].tobytes() == x.tobytes(), name


@pytest.fixture(scope="module")
def reference():
    """The program, and what it computes if nobody kills it."""
    names = {"__name__": "reference"}
    exec(PROGRAM, names)  # noqa: S102
    return names


def kills(folder, reference, lives):
    """Kill after so many lines, and a random while later; then let the run end as the one that nobody killed."""
    rng = random.Random(7)
    reached = [killed(folder, lines, rng.uniform(0.0, 0.02)) for lines in lives]
    found, begun = finish(folder)
    compare(found, {name: np.asarray(x) for name, x in reference["chains"]().items()})
    # All of them hit a run that was not done, the first one its warm-up, the last one its draws.
    assert reached[0] < reference["WARMUP"] < max(reached) < reference["WARMUP"] + reference["STEPS"]
    # Checkpoints every 20 steps: no more than two intervals are repeated (one may be under way).
    assert begun >= max(reached) - 40 > 0


def test_three_kills_lose_nothing(tmp_path, reference):
    kills(tmp_path, reference, (3, 30, 20))


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path, reference):
    """430 chunks, of which the kills leave no more than a half."""
    kills(tmp_path, reference, [3, 5, *random.Random(1).choices(range(2, 20), k=18)])


def test_a_thousand_are_four_hundred_a_kill_and_six_hundred(tmp_path, reference):
    """The process kills itself when it has written its checkpoint at step 400, the only one."""
    with program(tmp_path, "suicide") as process:
        told = process.stdout.read().split()
        assert process.wait(timeout=300) == -signal.SIGKILL
    warmup, path = reference["WARMUP"], tmp_path / "run.ckpt"
    assert int(told[-1]) == warmup + 400 and path.exists() and not path.with_name("run.ckpt.previous").exists()
    seen = []
    choices = dict(checkpoint=path, every=400, progress=lambda done, steps: seen.append(done))
    found = reference["chains"](steps=1000, **choices)
    assert seen[0] == warmup + 400 and seen[-1] == warmup + 1000
    compare({k: np.asarray(x) for k, x in found.items()}, {
        name: np.asarray(x) for name, x in reference["chains"](steps=1000).items()
    })  # fmt: skip


MEMORY = """
import resource, sys
import jax, jax.numpy as jnp
import solvers as sv

def step(x, n):
    return 0.5 * x + jax.random.normal(jax.random.fold_in(jax.random.key(0), n), x.shape)

sinks = {"m": sv.Moments(), "b": sv.BatchMeans(), "q": sv.Quantiles(), "d": sv.Draws(sys.argv[1])}
for steps in (10_000, 1_000_000):
    sv.run(step, jnp.zeros(8), steps=steps, sinks=sinks, chunk=2000, checkpoint=f"{sys.argv[1]}/{steps}.ckpt")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_flat_from_ten_thousand_to_a_million_steps(tmp_path):
    """64 bytes per step: what is kept of a million would be 64 MB."""
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path)]
    told = subprocess.run(
        arguments, capture_output=True, text=True, timeout=900, env={**os.environ, "JAX_ENABLE_X64": "1"}
    )
    assert told.returncode == 0, told.stderr
    few, many = map(int, told.stdout.split())
    assert many - few < 8 * 1024  # kB
    assert np.load(tmp_path / "draws.npy", mmap_mode="r").shape == (1_000_000, 8)


def test_this_process_is_not_touched(tmp_path):
    """Signals are handed back, and keys of a resumed run are those of the first."""
    before = signal.getsignal(signal.SIGINT)
    kernel = sv.Ula(lambda x: -0.5 * x @ x, step=0.1)
    sv.sample(kernel, jax.random.key(0), np.ones((2, 2)), steps=4, checkpoint=tmp_path / "run.ckpt")
    assert signal.getsignal(signal.SIGINT) is before
