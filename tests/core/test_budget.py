"""The plan says what each strategy costs, picks by the budget, and is near what the compiler needs."""

import jax
import jax.numpy as jnp
import pytest

import solvers as sv
from solvers.core.budget import parse_bytes

GRID = sv.Grid((48, 48), 1.0)
STEPS = 600


def wave(speed=1.0):
    return sv.Wave(GRID, speed, boundary=sv.Rigid(), order=4)


def table(memory=None, **changes):
    w = wave()
    return sv.plan(w, w.at_rest(), **({"steps": STEPS, "dt": 0.4, "memory": memory} | changes))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GB", 2e9),
        ("500 MB", 5e8),
        ("1.5GiB", 1.5 * 2**30),
        ("10k", 1e4),
        ("7", 7),
        (123, 123),
        (1e6, 1e6),
        ("1 TB", 1e12),
    ],
)
def test_sizes_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "2XB", "-1GB", "1.2.3GB", 0, -5, 0.0])
def test_bad_sizes_are_named(text):
    with pytest.raises(ValueError, match="`memory` must be a positive number of bytes"):
        parse_bytes(text)


def test_more_levels_need_less_memory_and_more_runs():
    options = table().options
    assert [o.adjoint for o in options] == [sv.StoreAll(), *(sv.Checkpoint(n) for n in (2, 3, 4, 5))]
    assert all(a.bytes > b.bytes and a.runs < b.runs for a, b in zip(options[:4], options[1:4], strict=False))  # noqa: RUF007


def test_the_fastest_that_fits_is_taken():
    options = table().options
    for option in options[:4]:
        assert table(option.bytes).chosen == option.adjoint
    assert table(min(o.bytes for o in options) - 1).chosen is None
    assert "<- auto" in str(table("1GB")) and "Checkpoint(levels=2)" in str(table("1GB"))


def gradient_bytes(adjoint, memory=None):
    def misfit(speed):
        w = wave(speed)
        start = w.state(jnp.ones(GRID.shape).at[20:25].set(2.0))
        run = sv.simulate(w, start, steps=STEPS, dt=0.4, adjoint=adjoint, memory=memory)
        return jnp.sum(run.final.pressure**2)

    compiled = jax.jit(jax.grad(misfit)).lower(jnp.ones(GRID.shape)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("adjoint", [sv.StoreAll(), sv.Checkpoint(2), sv.Checkpoint(3), sv.Checkpoint(4)])
def test_the_estimate_is_near_what_the_compiler_needs(adjoint):
    estimate = next(o.bytes for o in table().options if o.adjoint == adjoint)
    needed = gradient_bytes(adjoint)
    # A plan that promises less than is needed would break the budget; one far above would waste it.
    assert needed <= 1.1 * estimate and estimate <= 2 * needed


def test_auto_keeps_to_its_budget():
    budget = 2 * next(o.bytes for o in table().options if o.adjoint == sv.Checkpoint(2))
    assert gradient_bytes("auto", budget) <= budget < gradient_bytes(sv.StoreAll())


def test_memory_counts_one_lane_of_a_batch():
    options = table().options

    def f(speed):
        w = wave(speed)
        return sv.simulate(w, w.at_rest(), steps=STEPS, dt=0.4, memory=options[-2].bytes).final.pressure.sum()

    jax.eval_shape(jax.vmap(f), jnp.ones((50, *GRID.shape)))


def test_a_budget_that_nothing_fits_is_refused_to_gradients_before_running():
    """But not to a run, nor to gradients of what enters linearly, for which nothing is stored."""

    def misfit(speed, pressure):
        w = wave(speed)
        return jnp.sum(sv.simulate(w, w.state(pressure), steps=STEPS, dt=0.4, memory="10kB").final.pressure)

    field = jax.ShapeDtypeStruct(GRID.shape, float)
    jax.eval_shape(misfit, field, field)
    jax.eval_shape(jax.grad(misfit, 1), field, field)
    with pytest.raises(ValueError, match="No adjoint strategy fits") as caught:
        jax.eval_shape(jax.grad(misfit), field, field)
    assert "Checkpoint(levels=5)" in str(caught.value) and "MB" in str(caught.value)
    assert "none fits" in str(table("10kB")) and "none fits" not in str(table("1GB"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"steps": True}, "`steps` must be a whole number, got True"),
        ({"dt": -1.0}, "`dt` must be positive"),
        ({"dt": 4.0}, "Courant number"),
        ({"inputs": jnp.zeros(STEPS)}, "`inputs` but no sources"),
        ({"inputs": jnp.zeros(3)}, "leading axis of length steps=600"),
        ({"every": 0}, "`every` must be at least 1"),
    ],
)
def test_a_plan_is_refused_what_a_run_is(changes, words):
    with pytest.raises(ValueError, match=words):
        table(**changes)


def test_a_plan_wants_the_signals_of_sources():
    w = sv.Wave(GRID, 1.0, boundary=sv.Rigid(), sources=[[20.0, 20.0]])
    with pytest.raises(ValueError, match="sources but no `inputs`"):
        sv.plan(w, w.at_rest(), steps=STEPS, dt=0.4)


@pytest.mark.parametrize("every", [1, 7, 100, 1000])
def test_a_plan_is_made_for_every_interval(every):
    assert table(every=every).chosen is not None
