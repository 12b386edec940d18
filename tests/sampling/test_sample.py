"""`sample` draws from what it is told to, by the keys of the rule, whatever the layout, and refuses what cannot be."""

import itertools
import os
import signal
import subprocess
import sys

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.sampling.warmup import windows

KEY = jax.random.key(11)
SD = jnp.array([1.0, 10.0, 0.01])


def gaussian(x):
    return -0.5 * jnp.sum((x / SD) ** 2)


class Noise(eqx.Module):
    """A kernel whose position is its noise."""

    def init(self, position, key):
        return Position(position)

    def step(self, key, state):
        # Made of bits without rounding, so that every program gives the same numbers.
        return Position(jax.random.uniform(key, state.position.shape)), None


class Position(eqx.Module):
    position: jax.Array


MALA = sv.Mala(gaussian, step=1e-4)


@pytest.fixture(scope="module")
def adapted():
    return sv.sample(MALA, KEY, jnp.zeros((4, 3)), steps=2000, warmup=600)


# ---- Keys, layout, chunks ----


def test_keys_follow_the_rule():
    run = sv.sample(Noise(), KEY, jnp.zeros((3, 2)), steps=9)
    for chain in range(3):
        for n in range(9):
            key = jax.random.fold_in(jax.random.fold_in(KEY, chain), n)
            np.testing.assert_array_equal(run.draws[chain, n], jax.random.uniform(key, (2,)))
    # What the kernel does not tell is not held against it.
    assert np.isnan(run.acceptance).all() and run.remarks == ()


def test_warm_up_shifts_the_keys_and_shorter_runs_are_prefixes():
    long = sv.sample(Noise(), KEY, jnp.zeros((3, 2)), steps=9)
    np.testing.assert_array_equal(sv.sample(Noise(), KEY, jnp.zeros((2, 2)), steps=4).draws, long.draws[:2, :4])
    np.testing.assert_array_equal(
        sv.sample(Noise(), KEY, jnp.zeros((3, 2)), steps=5, warmup=4).draws, long.draws[:, 4:]
    )


def test_chunks_sinks_and_thinning_leave_the_chain_alone():
    start = jnp.ones((2, 3))
    kernel = sv.Mala(gaussian, step=2e-4)
    plain = sv.sample(kernel, KEY, start, steps=60)
    np.testing.assert_array_equal(sv.sample(kernel, KEY, start, steps=60, chunk=7).draws, plain.draws)
    watched = sv.sample(kernel, KEY, start, steps=60, sinks={"m": sv.Moments()})
    assert watched.draws is None
    np.testing.assert_array_equal(watched.positions, plain.draws[:, -1])
    np.testing.assert_allclose(watched.sinks["m"].mean, plain.draws.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(watched.acceptance, plain.statistics["acceptance"].mean(axis=1), rtol=1e-12)
    # Three steps are fused in another way than one.
    np.testing.assert_allclose(sv.sample(kernel, KEY, start, steps=60, thin=3).draws, plain.draws[:, 2::3], rtol=1e-9)


SHARDED = """
import sys, jax, jax.numpy as jnp, numpy as np
import solvers as sv
exec(sys.stdin.read())
assert jax.device_count() == 8
kernel, start, noise = problem()
run = sv.sample(kernel, jax.random.key(3), start, steps=200, every=20, checkpoint=sys.argv[1] + "/c.ckpt")
noisy = sv.sample(noise, jax.random.key(3), start, steps=20)
again = sv.sample(kernel, jax.random.key(3), start, steps=300, every=20, checkpoint=sys.argv[1] + "/c.ckpt")
np.savez(sys.argv[1] + "/draws.npz", draws=run.draws, noise=noisy.draws, again=again.draws)
"""
PROBLEM = """
import equinox as eqx
class Position(eqx.Module):
    position: jax.Array
class Noise(eqx.Module):
    def init(self, position, key):
        return Position(position)
    def step(self, key, state):
        return Position(jax.random.normal(key, state.position.shape)), None
def problem():
    kernel = sv.Mala(lambda x: -0.5 * jnp.sum(x**2) - 0.1 * jnp.sum(x**4), step=0.3)
    return kernel, jnp.linspace(-1.0, 1.0, 48).reshape(16, 3), Noise()
"""


def test_random_numbers_are_drawn_ahead_of_the_steps():
    """Blocks of 64 steps, cut by chunks and ticks that do not fit, are the numbers of the rule."""
    kernel, starts = sv.Mala(gaussian, step=0.3), jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    state = [kernel.init(x) for x in starts]
    step, found = jax.jit(lambda key, state: kernel.step(key, state)[0]), []
    for n in range(150):
        state = [step(jax.random.fold_in(jax.random.fold_in(KEY, c), n), s) for c, s in enumerate(state)]
        found.append([s.position for s in state])
    found = np.swapaxes(found, 0, 1)
    for choices in ({"chunk": 37}, {"thin": 10}, {"thin": 75}):
        run = sv.sample(kernel, KEY, starts, steps=150, **choices)
        thin = choices.get("thin", 1)
        np.testing.assert_allclose(run.draws, found[:, thin - 1 :: thin], rtol=1e-9)


def test_eight_devices_are_one(tmp_path):
    """Keys and noise to the bit, draws to round-off; a resume on several devices goes on where it was."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path)],
        input=PROBLEM, capture_output=True, text=True, timeout=300,
        env={**os.environ, "JAX_ENABLE_X64": "1", "XLA_FLAGS": flags},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {"jax": jax, "jnp": jnp, "sv": sv}
    exec(PROBLEM, names)  # noqa: S102
    kernel, start, noise = names["problem"]()
    found = np.load(tmp_path / "draws.npz")
    np.testing.assert_array_equal(found["noise"], sv.sample(noise, jax.random.key(3), start, steps=20).draws)
    alone = sv.sample(kernel, jax.random.key(3), start, steps=300).draws
    # 300 contracting steps: round-off does not grow.
    np.testing.assert_allclose(found["again"], alone, atol=1e-12)
    np.testing.assert_array_equal(found["draws"], found["again"][:, :200])
    # Fewer chains are the first of many.
    np.testing.assert_allclose(sv.sample(kernel, jax.random.key(3), start[:3], steps=300).draws, alone[:3], atol=1e-12)


# ---- Warm-up ----


def test_warm_up_finds_step_and_scales(adapted):
    variance = np.asarray(adapted.kernel.metric.variance)
    # 275 draws of 4 chains per window, a third of them effective: relative error sqrt(2 / 370) = 0.07, four of these.
    np.testing.assert_allclose(variance, SD**2, rtol=0.3)
    # The mean acceptance of 100 steps of 4 chains is known to 0.3 / sqrt(200); dual averaging stops a little short.
    assert adapted.acceptance.mean() == pytest.approx(0.574, abs=0.1)
    summary = adapted.summary()
    numbers = summary.numbers["x"]
    assert (np.abs(numbers.mean) < 4 * numbers.mcse).all()
    np.testing.assert_allclose(numbers.sd, SD, rtol=0.1)
    assert summary.worst_r_hat < 1.01 and summary.warnings == () and adapted.check() is adapted


def test_a_low_rank_metric_finds_a_strong_correlation():
    direction = jnp.array([1.0, 1.0, 1.0, 1.0]) / 2

    def stretched(x):
        along = x @ direction
        return -0.5 * (x @ x - along**2) - 0.5 * (along / 10.0) ** 2

    kernel = sv.Mala(stretched, step=0.1)
    choices = dict(steps=800, warmup=800, adapt=sv.AdaptLowRank(1))
    run = sv.sample(kernel, KEY, 5.0 * jax.random.normal(KEY, (4, 4)), **choices)
    metric = run.kernel.metric
    found = np.asarray(metric.sqrt(metric.sqrt_transpose(direction)))
    # A d = 100 d.
    np.testing.assert_allclose(found @ direction, 100.0, rtol=0.4)
    assert run.summary().worst_r_hat < 1.03


def test_what_is_left_alone():
    ula = sv.sample(sv.Ula(gaussian, step=1e-5), KEY, jnp.zeros((2, 3)), steps=4, warmup=50)
    assert float(ula.kernel.step_size) == 1e-5 and isinstance(ula.kernel.metric, sv.IdentityMetric)
    mine = sv.DiagonalMetric(SD**2)
    run = sv.sample(sv.Mala(gaussian, step=0.5, metric=mine), KEY, jnp.zeros((2, 3)), steps=4, warmup=50)
    np.testing.assert_array_equal(run.kernel.metric.variance, mine.variance)
    assert float(run.kernel.step_size) != 0.5


@pytest.mark.parametrize("steps", [1, 2, 5, 19, 20, 149, 150, 151, 1000, 4321])
def test_windows_fill_the_warm_up(steps):
    plan = list(windows(steps))
    assert sum(length for length, _ in plan) == steps and all(length > 0 for length, _ in plan)


def test_a_warm_up_resumes(tmp_path):
    """A second call reads the warm-up from its file, which another kernel may not."""
    choices = dict(warmup=60, checkpoint=tmp_path / "run.ckpt")
    first = sv.sample(MALA, KEY, jnp.zeros((2, 3)), steps=40, **choices)
    second = sv.sample(MALA, KEY, jnp.zeros((2, 3)), steps=80, **choices)
    np.testing.assert_array_equal(second.draws[:, :40], first.draws)
    with pytest.raises(
        sv.CheckpointError, match=r"kernel: solvers\.sampling\.mala\.Mala there, solvers\.sampling\.over"
    ):
        sv.sample(sv.Ula(gaussian, step=1e-5), KEY, jnp.zeros((2, 3)), steps=40, **choices)
    # The draws of another posterior, also where only the warm-up is left of it.
    (tmp_path / "run.ckpt").unlink()
    (tmp_path / "run.ckpt.previous").unlink()
    before = (tmp_path / "run.ckpt.warmup").read_bytes()
    for kernel, key, start, message in (
        (MALA, jax.random.key(12), 0.0, "parameters, data or key"),
        (sv.Mala(gaussian, step=2e-4), KEY, 0.0, "parameters, data or key"),
        (sv.Mala(lambda x: gaussian(x - 1.0), step=1e-4), KEY, 0.0, "different state"),
        (MALA, KEY, 0.1, "start elsewhere"),
    ):
        with pytest.raises(sv.CheckpointError, match=rf"another run.* {message}.*delete run\.ckpt\.warmup"):
            sv.sample(kernel, key, jnp.full((2, 3), start), steps=80, **choices)
    assert (tmp_path / "run.ckpt.warmup").read_bytes() == before
    again = sv.sample(MALA, KEY, jnp.zeros((2, 3)), steps=80, **choices)
    np.testing.assert_array_equal(again.draws, second.draws)


class Shifted(eqx.Module):
    """A Gaussian whose mean is data."""

    mean: jax.Array

    def __call__(self, x):
        return gaussian(x - self.mean)


def test_other_data_under_one_name_are_another_warm_up(tmp_path):
    choices = dict(steps=20, warmup=30, checkpoint=tmp_path / "run.ckpt")
    sv.sample(sv.Mala(Shifted(jnp.zeros(3)), step=1e-4), KEY, jnp.zeros((2, 3)), **choices)
    with pytest.raises(sv.CheckpointError, match=r"key have other values .*delete run\.ckpt\.warmup"):
        sv.sample(sv.Mala(Shifted(jnp.ones(3)), step=1e-4), KEY, jnp.zeros((2, 3)), **choices)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("adapt", [None, sv.AdaptLowRank(1)])
def test_a_warm_up_is_cut_anywhere_and_counted(tmp_path, adapt):
    """Chunks of another size, an end in the midst of a window, a damaged file: the same bits, and progress from 0."""
    choices = dict(steps=20, warmup=60, adapt=adapt)
    plain = sv.sample(MALA, KEY, jnp.zeros((2, 3)), **choices)
    path, told = tmp_path / "run.ckpt", []

    def stop(done, steps):
        told.append((done, steps))
        if done >= 45:
            raise Stopped

    with pytest.raises(Stopped):
        sv.sample(MALA, KEY, jnp.zeros((2, 3)), **choices, checkpoint=path, chunk=7, every=10, progress=stop)
    assert told[:4] == [(0, 80), (7, 80), (9, 80), (10, 80)] and told[-1][0] == 47
    warm = tmp_path / "run.ckpt.warmup"
    warm.write_bytes(warm.read_bytes()[:-1])
    told.clear()
    with pytest.warns(UserWarning, match=r"Going on from the one before it, run\.ckpt\.warmup\.previous"):
        run = sv.sample(*(MALA, KEY, jnp.zeros((2, 3))), **choices, checkpoint=path, progress=lambda *x: told.append(x))
    assert told[0] == (30, 80) and told[-1] == (80, 80) and all(a <= b for a, b in itertools.pairwise(told))
    np.testing.assert_array_equal(run.draws, plain.draws)
    np.testing.assert_array_equal(run.kernel.step_size, plain.kernel.step_size)


def test_a_signal_in_the_warm_up_writes_its_checkpoint(tmp_path):
    """Windows of 9, 45 and 6 steps; the signal comes in the second."""
    path, told, again = tmp_path / "run.ckpt", [], []

    def interrupt(done, steps):
        told.append(done)
        if done == 29:
            os.kill(os.getpid(), signal.SIGINT)

    choices = dict(steps=20, warmup=60, checkpoint=path, chunk=10)
    with pytest.raises(KeyboardInterrupt):
        sv.sample(MALA, KEY, jnp.zeros((2, 3)), **choices, progress=interrupt)
    assert told[-1] in (29, 39) and not path.exists()
    sv.sample(MALA, KEY, jnp.zeros((2, 3)), **choices, progress=lambda done, steps: again.append(done))
    assert again[0] == told[-1] and again[-1] == 80


def test_no_place_for_a_warm_up(tmp_path):
    with pytest.raises(sv.CheckpointError, match="nowhere of the checkpoint does not exist"):
        sv.sample(*(MALA, KEY, jnp.zeros((2, 3))), steps=20, warmup=60, checkpoint=tmp_path / "nowhere" / "run.ckpt")


# ---- Other kernels, other shapes ----


@pytest.mark.parametrize("name", ["mala", pytest.param("nuts", marks=pytest.mark.slow)])
def test_blackjax_kernels_run_as_they_are(name):
    def normal(x):
        return -0.5 * jnp.sum(x["a"] ** 2) - 0.5 * jnp.sum((x["b"] / 3) ** 2)

    kernel = blackjax.mala(normal, 0.4) if name == "mala" else blackjax.nuts(normal, 0.5, jnp.array([1.0, 1.0, 9.0]))
    start = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    run = sv.sample(kernel, KEY, start, steps=1500, warmup=20)
    assert run.draws["a"].shape == (2, 1500, 2) and run.draws["b"].shape == (2, 1500)
    numbers = run.summary().numbers
    assert abs(float(numbers["b"].mean)) < 4 * float(numbers["b"].mcse)
    assert 0.5 < run.acceptance.mean() < 1.0
    if name == "nuts":
        assert (run.gradients > 1500).all()
    else:
        exported = run.to_arviz()
        assert exported.posterior["a"].shape == (2, 1500, 2) and "acceptance_rate" in exported.sample_stats


def test_observe_takes_the_place_of_positions():
    run = sv.sample(MALA, KEY, jnp.ones((2, 3)), steps=10, thin=5, observe=lambda x: {"norm": jnp.linalg.norm(x)})
    plain = sv.sample(MALA, KEY, jnp.ones((2, 3)), steps=10, thin=5)
    np.testing.assert_allclose(run.draws["norm"], np.linalg.norm(plain.draws, axis=-1))
    assert run.statistics["acceptance"].shape == (2, 2) and run.positions.shape == (2, 3)


def test_single_precision_stays():
    run = sv.sample(sv.Mala(gaussian, step=1e-4), KEY, jnp.ones((2, 3), jnp.float32), steps=4, warmup=30)
    assert run.draws.dtype == np.float32


def test_a_rule_on_the_effective_sample_size():
    sinks = {"b": sv.BatchMeans(16)}
    kernel = sv.Mala(lambda x: -0.5 * jnp.sum(x**2), step=0.5)
    run = sv.sample(
        kernel, KEY, jnp.zeros((4, 2)), steps=20_000, sinks=sinks, every=500,
        until=lambda told: (told["b"].ess > 500).all(),
    )  # fmt: skip
    assert run.stopped and run.steps < 20_000 and (run.sinks["b"].ess > 500).all()


# ---- Failure ----


def test_values_that_are_not_finite_are_told():
    """An unadjusted chain is held up at the edge of what is finite, and the run says so; sinks stay clean."""

    def quartic(x):
        return jnp.where(jnp.abs(x[0]) < 2, -jnp.sum(x**4), jnp.nan)

    run = sv.sample(sv.Ula(quartic, step=0.3), KEY, jnp.ones((2, 1)), steps=200, sinks={"m": sv.Moments()})
    assert run.status is sv.Status.NONFINITE and (run.nonfinite > 0).all()
    assert np.isfinite(run.sinks["m"].mean).all() and run.sinks["m"].count == 400
    with pytest.raises(sv.SolverError, match=r"2 of 2 chains met values .* Tamed or Mala"):
        run.check()
    right = sv.sample(sv.Mala(quartic, step=0.3), KEY, jnp.ones((2, 1)), steps=200)
    assert (
        right.status.ok
        and np.isfinite(right.draws).all()
        and "were not finite and were rejected" in str(right.summary())
    )


def test_a_lost_chain_does_not_spoil_the_others():
    class Doubling(eqx.Module):
        def init(self, position):
            return Position(position)

        def step(self, key, state):
            return Position(jnp.where(state.position > 50.0, jnp.nan, 2 * state.position)), None

    run = sv.sample(Doubling(), KEY, jnp.array([[0.0], [1.0]]), steps=20, sinks={"m": sv.Moments()})
    # Looked for every 64 steps and at the end; sinks look at every value.
    assert run.failed_step.tolist() == [-1, 20] and run.status is sv.Status.NONFINITE
    assert run.sinks["m"].count == 26 and np.isfinite(run.sinks["m"].mean).all()
    with pytest.raises(sv.SolverError, match="1 of 2 chains are not finite any more, the first after step 20"):
        run.check()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(positions=jnp.zeros((2, 3), int)), TypeError, "must hold real floating numbers, got dtype int"),
        (dict(positions=jnp.zeros(())), ValueError, "leading axis of chains"),
        (dict(positions={"a": jnp.zeros((2, 1)), "b": jnp.zeros((3, 1))}), ValueError, "leading axis of chains"),
        (dict(positions=jnp.full((2, 3), jnp.nan)), ValueError, "finite everywhere; 6 of 6"),
        (dict(positions={}), ValueError, "no array"),
        (dict(key=jnp.zeros(2, jnp.uint32)), TypeError, "jax.random.key"),
        (dict(key=jax.random.split(KEY, 2)), TypeError, "must be one key"),
        (dict(kernel=gaussian), TypeError, "has no init"),
        (dict(kernel=sv.Mala(lambda x: x, step=0.1)), ValueError, "must return one real number"),
        (dict(kernel=sv.Mala(lambda x: jnp.log(-1.0 - x[0] ** 2), step=0.1)), ValueError, "2 of 2 chains start where"),
        (dict(kernel=blackjax.mala(lambda x: jnp.nan * x[0], 0.1)), ValueError, "logdensity"),
        (dict(steps=0), ValueError, "at least 1"),
        (dict(warmup=-1), ValueError, "at least 0"),
        (dict(thin=3), ValueError, "multiple of `thin`"),
        (dict(adapt="diagonal"), TypeError, "AdaptStep"),
        (dict(adapt=sv.AdaptStep()), ValueError, "give `warmup` steps"),
        (dict(observe=3), TypeError, "`observe` must be a function"),
        (dict(observe=sv.Mean(jnp.sum)), TypeError, "here give `sinks`"),
        (dict(kernel=sv.Mala(gaussian, step=0.1, metric=sv.DiagonalMetric(jnp.ones(4)))), ValueError, "shapes .*3"),
        (dict(kernel=sv.Mala(gaussian, step=0.1, metric=sv.DiagonalMetric({"a": 1.0}))), ValueError, "does not fit"),
        (dict(kernel=Noise(), adapt=sv.AdaptStep(), warmup=3), ValueError, "nothing that AdaptStep could adapt"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    choices = {"kernel": MALA, "key": KEY, "positions": jnp.zeros((2, 3)), "steps": 4, **arguments}
    with pytest.raises(error, match=message):
        sv.sample(choices.pop("kernel"), choices.pop("key"), choices.pop("positions"), **choices)


def not_a_number(x):
    return jnp.nan * jnp.sum(x)


DATA = jnp.array([0.0, jnp.nan])
POSTERIOR = sv.Minibatch(lambda x: -x @ x, lambda x, d: d * jnp.sum(x), DATA[1:], size=1)


@pytest.mark.parametrize(
    "kernel",
    [
        sv.Ubu(not_a_number, step=0.1),
        sv.Baoab(not_a_number, step=0.1),
        sv.Ubu(score=lambda x: jnp.nan * x, step=0.1),
        # The density is known to the state, the score is not.
        sv.Ubu(lambda x: -jnp.sum(x * x), score=lambda x: jnp.nan * x, step=0.1, metropolis=True),
        sv.Sgld(POSTERIOR, step=0.1),
        sv.PreconditionedSgld(POSTERIOR, step=0.1),
        sv.ParallelTempering(sv.Ubu(not_a_number, step=0.1, metropolis=True), jnp.array([1.0, 0.5])),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_no_kernel_starts_where_nothing_is_known(kernel):
    with pytest.raises(ValueError, match=r"2 of 2 chains start where .* is not finite"):
        sv.sample(kernel, KEY, jnp.ones((2, 3)), steps=4)


def test_derivatives_through_sample_name_what_has_them():
    def through(step=1e-4, width=1.0):
        kernel = sv.Ula(lambda x: gaussian(x / width), step=step)
        return sv.sample(kernel, KEY, jnp.ones((2, 3)), steps=4).draws.sum()

    for change in ("step", "width"):
        with pytest.raises(TypeError, match=r"derivatives .* take `sv\.pathwise`"):
            jax.grad(lambda x, change=change: through(**{change: x}))(1.0)


def test_gradients_are_counted_beyond_32_bits():
    """Each step of this kernel takes 2^30 gradients."""

    class Busy(eqx.Module):
        def init(self, position):
            return Position(position)

        def step(self, key, state):
            return state, Report(jnp.asarray(2**30, jnp.int32))

    run = sv.sample(Busy(), KEY, jnp.zeros((2, 1)), steps=9)
    assert run.gradients.tolist() == [9 * 2**30] * 2


class Report(eqx.Module):
    gradients: jax.Array


def test_too_few_draws_and_none_at_all():
    with pytest.raises(ValueError, match="at least 4 draws per chain, got 3"):
        sv.sample(MALA, KEY, jnp.zeros((2, 3)), steps=3).summary()
    with pytest.raises(ValueError, match="No draws were kept"):
        sv.sample(MALA, KEY, jnp.zeros((2, 3)), steps=60, sinks={"m": sv.Moments()}).summary()
    with pytest.raises(ValueError, match="positive"):
        sv.Mala(gaussian, step=0.0)


def test_a_density_that_reads_what_changes_is_asked_again():
    """At the start, in the warm-up and in the draws: the second run is that of a density of its own."""
    centre = [0.0]

    def draws(density):
        kernel = sv.Mala(density, step=0.5)
        return sv.sample(kernel, KEY, jnp.zeros((2, 1)), steps=30, warmup=20, adapt=sv.AdaptStep()).draws

    def density(x):
        return -0.5 * jnp.sum((x - centre[0]) ** 2)

    draws(density)
    centre[0] = 4.0
    np.testing.assert_array_equal(draws(density), draws(lambda x: -0.5 * jnp.sum((x - 4.0) ** 2)))
