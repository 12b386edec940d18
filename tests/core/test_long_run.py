"""A long run is the same run whatever its chunks, interruptions and resumes, and refuses what is not its own."""

import itertools
import os
import signal
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.checkpoint_file import previous, read

KEY = jax.random.key(5)


def walk(state, n):
    """A random walk that is pulled back, and the number of its steps."""
    noise = jax.random.normal(jax.random.fold_in(KEY, n), (3,))
    return {"x": 0.9 * state["x"] + noise, "count": state["count"] + 1}


def position(state):
    return state["x"]


def start():
    return {"x": jnp.array([1.0, -2.0, 0.5]), "count": jnp.asarray(0)}


SINKS = {"moments": sv.Moments(), "batches": sv.BatchMeans(16), "quantiles": sv.Quantiles((0.5,), keep=16)}


def go(steps=100, **choices):
    return sv.run(walk, start(), steps=steps, observe=position, **choices)


def same(a, b):
    """Bit for bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture(scope="module")
def whole():
    """The run without interruption."""
    return go(), go(sinks=SINKS)


# ---- What it computes ----


def test_it_is_the_step_again_and_again(whole):
    state, seen = start(), []
    for n in range(100):
        state = walk(state, jnp.asarray(n, jnp.int32))
        seen.append(state["x"])
    run, _ = whole
    # The same operations, but not fused in the same way.
    np.testing.assert_allclose(run.observed, np.stack(seen), atol=1e-13)
    assert int(run.final["count"]) == 100 and run.steps == 100
    assert run.times.tolist() == list(range(1, 101)) and run.status is sv.Status.OK and run.check() is run


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_change_nothing(whole, chunk):
    same(go(chunk=chunk), whole[0])
    same(go(chunk=chunk, sinks=SINKS), whole[1])


def test_thinning_takes_every_so_manieth(whole):
    run = go(thin=10)
    np.testing.assert_allclose(run.observed, whole[0].observed[9::10], atol=1e-13)
    assert run.times.tolist() == list(range(10, 101, 10))


def test_sinks_see_what_would_be_stacked(whole):
    stacked, sinks = whole
    assert sinks.observed is None
    np.testing.assert_allclose(sinks.sinks["moments"].mean, stacked.observed.mean(axis=0), atol=1e-13)


def test_draws_on_disk_are_the_same(whole, tmp_path):
    run = go(sinks={"all": sv.Draws(tmp_path / "all"), "moments": sv.Moments()})
    same(np.asarray(run.sinks["all"]), whole[0].observed)
    same(np.load(tmp_path / "all" / "draws.npy"), whole[0].observed)
    same(run.sinks["moments"], whole[1].sinks["moments"])


def test_a_wave_in_chunks_is_simulate(tmp_path):
    """Resumed in the middle as well: the checkpoint holds what the loop marches, not the public state."""
    wave = sv.Wave(sv.Grid(40, 10.0), 1500.0, boundary=((sv.Free(), sv.Rigid()),), sources=[[80.0]])
    dt, steps = 0.8 * wave.max_dt(), 96
    signal = sv.ricker(12.0, steps=steps, dt=dt)
    receivers = wave.receivers([[120.0], [33.0]])
    once = sv.simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal, observe=receivers).check()

    class Stopped(Exception):
        pass

    def stop(done, steps):
        if done == 40:
            raise Stopped

    def go(progress=False):
        choices = dict(steps=steps, dt=dt, inputs=signal, observe=receivers, chunk=8, every=8, t0=3.0)
        return sv.run(wave, wave.at_rest(), **choices, checkpoint=tmp_path / "wave.ckpt", progress=progress)

    with pytest.raises(Stopped):
        go(stop)
    run = go().check()
    # Leapfrog amplifies round-off by less than the number of steps.
    scale, bound = float(np.abs(once.observed).max()), 10 * steps * np.finfo(float).eps
    np.testing.assert_allclose(run.observed, once.observed, atol=bound * scale)
    for a, b in zip(jax.tree.leaves(run.final), jax.tree.leaves(once.final), strict=True):
        np.testing.assert_allclose(a, b, atol=bound * max(float(np.abs(b).max()), 1e-300))
    np.testing.assert_allclose(run.times, 3.0 + np.asarray(once.times), rtol=1e-14)
    # Steps between looks are taken two by two, which is the same scheme.
    silent = sv.run(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal)
    np.testing.assert_allclose(silent.final.pressure, once.final.pressure, atol=bound * scale)


def test_inputs_by_a_function_of_time():
    """Time is t0 + n dt with an integer n: in single precision it does not drift either."""

    class Clock:
        def step(self, state, inputs, dt):
            return inputs

    dt, steps = 1e-3, 4001
    run = sv.run(Clock(), jnp.zeros((), jnp.float32), steps=steps, dt=dt, t0=2.0, inputs=lambda t: t)
    assert abs(float(run.final) - (2.0 + (steps - 1) * dt)) < 2 * np.finfo(np.float32).eps * 6.0


def test_the_second_call_traces_nothing():
    # A list would count as something that the step depends on.
    traces = itertools.count()

    def step(state, n):
        next(traces)
        return state + 1.0

    for value, steps in ((0.0, 12), (5.0, 14)):
        before = next(traces)
        sv.run(step, jnp.full(2, value), steps=steps, sinks=SINKS)
        after = next(traces) - before - 1
    assert after == 0


def test_what_a_step_captures_counts():
    factor = [2.0]
    ends = []
    for factor[0] in (2.0, 3.0):
        ends.append(float(sv.run(lambda x, n: factor[0] * x, jnp.ones(()), steps=2).final))
    assert ends == [4.0, 9.0]

    def step(x, n):
        return factor[0] * x

    for factor[0] in (2.0, 3.0):
        ends.append(float(sv.run(step, jnp.ones(()), steps=2).final))
    assert ends[2:] == [4.0, 9.0]


# ---- Resume ----


@pytest.mark.parametrize("sinks", [None, SINKS])
def test_four_hundred_and_six_hundred_are_a_thousand(whole, tmp_path, sinks):
    """40 steps, saved; 60 more by a longer call."""
    path = tmp_path / "run.ckpt"
    go(steps=40, checkpoint=path, sinks=sinks)
    run = go(checkpoint=path, sinks=sinks)
    expected = whole[1] if sinks else whole[0]
    same((run.final, run.sinks, run.times), (expected.final, expected.sinks, expected.times))
    if sinks is None:
        same(np.asarray(run.observed), expected.observed)
    again = go(checkpoint=path, sinks=sinks)
    same((again.final, again.sinks), (run.final, run.sinks))


@pytest.mark.parametrize("steps", [(24, 40), (40, 41)])
def test_a_run_that_nobody_observes_goes_on(tmp_path, steps):
    """In blocks of 8 steps at first; 41 has no other divisor than 1 with them."""
    few, many = steps
    path = tmp_path / "run.ckpt"
    sv.run(walk, start(), steps=few, checkpoint=path)
    run = sv.run(walk, start(), steps=many, checkpoint=path)
    once = sv.run(walk, start(), steps=many)
    assert run.steps == many and int(run.final["count"]) == many and run.times.size == 0
    if many % 2:
        # Pairs of steps are compiled to another order of operations than single ones; the walk contracts.
        np.testing.assert_allclose(run.final["x"], once.final["x"], atol=1e-14)
    else:
        same(run.final, once.final)
    with pytest.raises(sv.CheckpointError, match=f"at step {many}, beyond the {few}"):
        sv.run(walk, start(), steps=few, checkpoint=path)


class Pushed(eqx.Module):
    """A decay that is pushed."""

    def step(self, state, inputs, dt):
        return state + dt * (inputs - state)


def test_more_steps_bring_more_inputs(tmp_path):
    """What has been read must be the same; what comes later is the user's."""
    path, push = tmp_path / "run.ckpt", np.sin(np.arange(60.0))

    def pushed(inputs, **choices):
        return sv.run(Pushed(), jnp.ones(()), steps=len(inputs), dt=0.1, inputs=inputs, observe=lambda x: x, **choices)

    pushed(push[:40], checkpoint=path)
    for harm in (3, 39):
        with pytest.raises(sv.CheckpointError, match="steps so far have read other `inputs`"):
            pushed(push + 1e-3 * (np.arange(60) == harm), checkpoint=path)
    run = pushed(push, checkpoint=path)
    same(np.asarray(run.observed), pushed(push).observed)


@pytest.mark.parametrize("sinks", [None, SINKS])
def test_another_observation_is_another_run(tmp_path, sinks):
    path = tmp_path / "run.ckpt"
    sv.run(walk, start(), steps=20, observe=lambda s: s["x"][0], checkpoint=path, sinks=sinks)
    with pytest.raises(sv.CheckpointError, match=r"What `observe` makes .* delete run\.ckpt to start again"):
        sv.run(walk, start(), steps=40, observe=lambda s: s["x"][1], checkpoint=path, sinks=sinks)


def test_a_start_of_the_other_sign_is_another_run(tmp_path):
    path = tmp_path / "run.ckpt"
    sv.run(lambda x, n: x / 2, jnp.array([1.0, 2.0]), steps=4, checkpoint=path)
    with pytest.raises(sv.CheckpointError, match="different state"):
        sv.run(lambda x, n: x / 2, jnp.array([-1.0, -2.0]), steps=4, checkpoint=path)


def test_a_rule_stops_at_the_same_step_whatever_the_chunks(tmp_path):
    def enough(sinks):
        return sinks["moments"].count >= 37

    choices = dict(sinks=SINKS, until=enough, every=10)
    runs = [go(**choices, chunk=c) for c in (None, 3, 100)]
    assert [run.steps for run in runs] == [40] * 3 and all(run.stopped for run in runs)
    path = tmp_path / "run.ckpt"
    for _ in range(2):
        run = go(**choices, checkpoint=path)
        assert run.steps == 40 and run.stopped
    assert go(sinks=SINKS, checkpoint=path, every=10).steps == 100


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, tmp_path, damage):
    path = tmp_path / "run.ckpt"
    go(steps=60, checkpoint=path, every=20)
    assert previous(path).exists()
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content[:-30] if damage == "cut" else content)
    with pytest.warns(UserWarning, match=r"damaged: .*Going on from the one before it, run\.ckpt\.previous"):
        run = go(checkpoint=path, every=20)
    same(np.asarray(run.observed), whole[0].observed)


@pytest.mark.parametrize("crash", [0, 1, 2])
def test_the_whole_one_stays_until_the_next_is_in_place(whole, tmp_path, monkeypatch, crash):
    """A crash at the first renames after a damaged checkpoint was found leaves a whole one."""
    path = tmp_path / "run.ckpt"
    go(steps=60, checkpoint=path, every=20)
    path.write_bytes(path.read_bytes()[:-30])
    renames = iter(range(10))

    def replace(old, new, rename=os.rename):
        if next(renames) == crash:
            raise OSError("crash")
        rename(old, new)

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="damaged"):
        patch.setattr(os, "replace", replace)
        with pytest.raises(sv.CheckpointError, match="could not be written"):
            go(checkpoint=path, every=20)
    assert is_whole(path) or is_whole(previous(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(np.asarray(go(checkpoint=path, every=20).observed), whole[0].observed)


def is_whole(path):
    try:
        read(path)
    except sv.CheckpointError:
        return False
    return True


def test_two_damaged_checkpoints_are_an_error(tmp_path):
    path = tmp_path / "run.ckpt"
    go(steps=60, checkpoint=path, every=20)
    for file in (path, previous(path)):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        sv.CheckpointError, match=r"no whole checkpoint before it either: delete run\.ckpt and run\.ckpt\.previous to"
    ):
        go(checkpoint=path, every=20)
    path.unlink()
    with pytest.raises(sv.CheckpointError, match=r"delete run\.ckpt\.previous to"):
        go(checkpoint=path, every=20)
    previous(path).unlink()
    assert go(steps=20, checkpoint=path).steps == 20


def test_the_previous_one_serves_where_the_newest_is_missing(whole, tmp_path):
    """What a crash between the two renames leaves."""
    path = tmp_path / "run.ckpt"
    go(steps=60, checkpoint=path, every=20)
    path.unlink()
    same(np.asarray(go(checkpoint=path, every=20).observed), whole[0].observed)


def test_a_foreign_file_is_left_alone(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("Chapter 1")
    with pytest.raises(sv.CheckpointError, match="no checkpoint of this library"):
        go(checkpoint=path)
    assert path.read_text() == "Chapter 1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
 lambda path: sv.run(lambda s, n: walk(s, n), start(), steps=40, observe=position, checkpoint=path),
 "equation",
),
        (lambda path: go(steps=40, thin=2, checkpoint=path), "thin: 1 there, 2 here"),
        (lambda path: go(steps=40, sinks=SINKS, checkpoint=path), "sinks"),
        (lambda path: go(steps=20, checkpoint=path), "beyond the 20"),
        (
            lambda path: sv.run(walk, {"x": jnp.zeros(3), "count": jnp.asarray(0)}, steps=40, observe=position,
                                checkpoint=path),
            "different state",
        ),
        (
            lambda path: sv.run(walk, {"x": jnp.zeros(3), "count": 0.0}, steps=40, observe=position, checkpoint=path),
            "state",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "run.ckpt"
    go(steps=40, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(sv.CheckpointError, match=message):
        change(path)
    assert path.read_bytes() == before


def test_another_speed_is_another_run(tmp_path):
    """The class and all shapes agree; that the medium is another one shows in the first step."""
    path = tmp_path / "wave.ckpt"
    grid = sv.Grid(32, 1.0)

    def go(speed):
        wave = sv.Wave(grid, speed, boundary=sv.Periodic())
        return sv.run(wave, wave.state(np.sin(np.arange(32.0))), steps=8, dt=0.1, checkpoint=path)

    go(2.0)
    go(2.0)
    with pytest.raises(sv.CheckpointError, match="another run"):
        go(2.001)


@pytest.mark.parametrize("harm", ["missing", "short", "changed"])
def test_draws_that_are_no_longer_there(tmp_path, harm):
    path = tmp_path / "run.ckpt"
    go(steps=40, checkpoint=path)
    file = tmp_path / "run.ckpt.draws" / "draws.npy"
    content = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    else:
        content[-3] ^= 1
        file.write_bytes(content if harm == "changed" else content[:-30])
    with pytest.raises(sv.CheckpointError, match=r"rows are missing|checksum is wrong|cannot be read"):
        go(steps=60, checkpoint=path)


def test_rows_after_the_checkpoint_are_cut_off(whole, tmp_path):
    path = tmp_path / "run.ckpt"
    go(steps=40, checkpoint=path)
    with open(tmp_path / "run.ckpt.draws" / "draws.npy", "ab") as file:
        file.write(b"half a row of a run that was killed")
    same(np.asarray(go(checkpoint=path).observed), whole[0].observed)


def test_no_place_for_the_checkpoint(tmp_path):
    with pytest.raises(sv.CheckpointError, match="does not exist"):
        go(checkpoint=tmp_path / "nowhere" / "run.ckpt")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_first_writes_a_checkpoint(whole, tmp_path, number):
    class Terminated(Exception):
        pass

    def handler(number, frame):
        raise Terminated

    def interrupt(done, steps):
        if done == 30:
            os.kill(os.getpid(), number)

    path = tmp_path / "run.ckpt"
    old = signal.signal(number, handler)
    try:
        with pytest.raises(Terminated):
            go(checkpoint=path, chunk=10, every=100, progress=interrupt)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, old)
    seen = []
    run = go(checkpoint=path, chunk=10, every=100, progress=lambda done, steps: seen.append(done))
    assert seen[0] in (30, 40)
    same(np.asarray(run.observed), whole[0].observed)


# ---- Failure ----


def explode(state, n):
    return jnp.where(n == 57, jnp.nan, state + 1.0)


def test_a_state_that_is_not_finite_ends_the_run(tmp_path):
    path = tmp_path / "run.ckpt"
    choices = dict(steps=400, observe=jnp.sum, checkpoint=path, every=20)
    run = sv.run(explode, jnp.zeros(2), **choices)
    # Looked for at every checkpoint, here after step 60, and every 64 steps.
    assert run.status is sv.Status.NONFINITE and run.failed_step == run.steps == len(run.observed) == 60
    assert np.isfinite(run.observed[:57]).all()
    with pytest.raises(sv.SolverError, match="after step 60"):
        run.check()
    # The checkpoint is from before: what it leads to fails in the same way.
    assert sv.run(explode, jnp.zeros(2), **choices).failed_step == 60
    alone = sv.run(explode, jnp.zeros(2), steps=400, sinks={"m": sv.Moments()})
    assert alone.failed_step == 64 and alone.sinks["m"].mean.tolist() == [29.0, 29.0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(steps=0), ValueError, "at least 1"),
        (dict(steps=True), ValueError, "whole number"),
        (dict(steps=2**31), ValueError, "at most"),
        (dict(steps=10, thin=3), ValueError, "multiple of `thin`=3"),
        (dict(steps=10, every=0), ValueError, "at least 1"),
        (dict(steps=10, chunk=-1), ValueError, "at least 1"),
        (dict(steps=10, dt=0.1), ValueError, "belong to equations"),
        (dict(steps=10, sinks=[sv.Moments()]), TypeError, "dict name -> sink"),
        (dict(steps=10, sinks={"m": sv.Mean(jnp.sum)}), TypeError, "observer of `simulate`"),
        (dict(steps=10, sinks={"m": 3}), TypeError, "must be one of"),
        (dict(steps=10, sinks={"observed": sv.Moments()}), ValueError, "No sink can be called"),
        (dict(steps=10, sinks={"a": sv.Draws("x"), "b": sv.Draws("x/../x")}), ValueError, "its own folder"),
        (dict(steps=10, observe=sv.Peak(jnp.sum)), TypeError, "accumulates"),
        (dict(steps=10, observe=3), TypeError, "function of the state"),
        (dict(steps=10, until=lambda s: True), ValueError, "sinks, too"),
        (dict(steps=10, progress="yes"), TypeError, "progress"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        sv.run(walk, start(), **arguments)


def test_wrong_steps_and_places():
    with pytest.raises(TypeError, match=r"state\['x'\] from float64\[3\] to float64\[1\]"):
        sv.run(lambda s, n: {**s, "x": s["x"][:1]}, start(), steps=4)
    with pytest.raises(TypeError, match="structure"):
        sv.run(lambda s, n: s["x"], start(), steps=4)
    with pytest.raises(TypeError, match="neither"):
        sv.run(3, start(), steps=4)
    with pytest.raises(TypeError, match="use `simulate`"):
        jax.grad(lambda dt: sv.run(Pushed(), jnp.ones(()), steps=4, dt=dt, inputs=jnp.zeros(4)).final)(0.1)
    with pytest.raises(TypeError, match="use `simulate`"):
        jax.grad(lambda x: sv.run(walk, {"x": x, "count": 0}, steps=4).final["x"].sum())(jnp.zeros(3))
    wave = sv.Wave(sv.Grid(16, 1.0), 1.0)
    with pytest.raises(ValueError, match="needs a time step"):
        sv.run(wave, wave.at_rest(), steps=4)
    with pytest.raises(ValueError, match="stab"):
        sv.run(wave, wave.at_rest(), steps=4, dt=10.0)
    with pytest.raises(ValueError, match="leading axis of length steps=4"):
        sv.run(wave, wave.at_rest(), steps=4, dt=0.1, inputs=np.zeros(3))


def test_progress_on_a_terminal_only(capsys):
    go(steps=4, progress=True)
    out, err = capsys.readouterr()
    assert not out and not err
