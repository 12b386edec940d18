"""The loop marches, observes, differentiates and reports as a plain Python loop would."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.adjoint import STRETCH

EPS = np.finfo(float).eps


class Pendulum(eqx.Module):
    """Coupled pendulums by symplectic Euler: nonlinear, its state a dict, its inputs a dict, an integer beside."""

    stiffness: Any

    def step(self, state, inputs, dt):
        push = 0.0 if inputs is None else inputs["push"]
        pull = -self.stiffness * jnp.sin(state["angle"]) + push + 0.1 * jnp.roll(state["angle"], 1)
        rate = state["rate"] + dt * pull
        return {"angle": state["angle"] + dt * rate, "rate": rate, "count": state["count"] + 1}


def start(dtype=jnp.float64):
    return {
        "angle": jnp.asarray([0.3, -0.4, 0.9], dtype),
        "rate": jnp.asarray([0.1, 0.0, -0.2], dtype),
        "count": jnp.asarray(0),
    }


def pushes(steps, dtype=jnp.float64):
    return {"push": 0.5 * jax.random.normal(jax.random.key(2), (steps, 3), dtype)}


STIFFNESS = jnp.array([1.0, 1.3, 0.7])


def by_hand(equation, state, steps, dt, inputs, see, every):
    """The definition."""
    seen = []
    for n in range(steps):
        state = equation.step(state, None if inputs is None else jax.tree.map(lambda x, n=n: x[n], inputs), dt)
        if (n + 1) % every == 0:
            seen.append(see(state))
    return state, seen


def close(a, b, bound):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = max(float(np.max(np.abs(y))), 1e-300)
        np.testing.assert_allclose(x, y, atol=bound * scale, rtol=0)


# ---- What it computes ----


@pytest.mark.parametrize("adjoint", [sv.StoreAll(), sv.Checkpoint(), sv.Checkpoint(3), "auto"])
@pytest.mark.parametrize(("steps", "every"), [(131, 1), (100, 7), (131, 100), (1, 1), (2 * STRETCH, STRETCH)])
def test_a_run_is_the_step_again_and_again(adjoint, steps, every):
    equation, inputs = Pendulum(STIFFNESS), pushes(steps)
    final, seen = by_hand(equation, start(), steps, 0.05, inputs, lambda s: s["angle"] * 2, every)
    run = sv.simulate(
        equation,
        start(),
        steps=steps,
        dt=0.05,
        inputs=inputs,
        observe=lambda s: s["angle"] * 2,
        every=every,
        adjoint=adjoint,
    ).check()
    # A pendulum below its separatrix amplifies round-off by far less than ten.
    bound = 10 * EPS * steps
    close(run.final, final, bound)
    assert int(run.final["count"]) == steps
    assert run.observed.shape == (steps // every, 3)
    if seen:
        close(run.observed, np.stack(seen), bound)
    np.testing.assert_allclose(run.times, 0.05 * every * np.arange(1, steps // every + 1), rtol=4 * EPS)
    assert run.status is sv.Status.OK and int(run.failed_step) == -1


def test_fewer_steps_than_one_observation():
    run = sv.simulate(Pendulum(STIFFNESS), start(), steps=5, dt=0.1, observe=lambda s: s["angle"], every=9)
    assert run.observed.shape == (0, 3) and run.times.shape == (0,)
    final, _ = by_hand(Pendulum(STIFFNESS), start(), 5, 0.1, None, lambda s: s, 9)
    close(run.final, final, 50 * EPS)


def test_without_observer_nothing_is_observed():
    run = sv.simulate(Pendulum(STIFFNESS), start(), steps=5, dt=0.1)
    assert run.observed is None and run.times.shape == (5,)


def test_any_object_with_a_step_is_an_equation():
    class Decay:
        def step(self, state, inputs, dt):
            return state * (1 - dt)

    run = sv.simulate(Decay(), jnp.ones(2), steps=10, dt=0.1)
    np.testing.assert_allclose(run.final, 0.9**10 * np.ones(2), rtol=10 * EPS)


def test_integer_inputs_stay_integers():
    class Pick:
        def step(self, state, inputs, dt):
            return state.at[inputs].add(dt)

    run = sv.simulate(Pick(), jnp.zeros(4), steps=4, dt=1.0, inputs=jnp.array([1, 1, 3, 0]))
    assert run.final.tolist() == [1.0, 2.0, 0.0, 1.0]


def test_input_k_acts_at_time_k_dt():
    class Integral:
        def step(self, state, inputs, dt):
            return state + inputs * dt

    run = sv.simulate(Integral(), jnp.zeros(()), steps=4, dt=0.5, inputs=jnp.arange(4.0), observe=lambda s: s)
    assert run.observed.tolist() == [0.0, 0.5, 1.5, 3.0] and run.times.tolist() == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_containers_of_observers_and_accumulators(every):
    steps = 131
    stacked = {"angle": lambda s: s["angle"], "pair": [lambda s: s["rate"], lambda s: {"a": s["angle"][0]}]}
    frequencies = np.array([0.1, 0.35])
    sums = (sv.Mean(lambda s: s["rate"]), sv.Peak(lambda s: s["angle"]), sv.Fourier(lambda s: s["angle"], frequencies))
    run = sv.simulate(
        Pendulum(STIFFNESS), start(), steps=steps, dt=0.05, observe={"stacked": stacked, "sums": sums}, every=every
    ).check()
    angle, rate = run.observed["stacked"]["angle"], run.observed["stacked"]["pair"][0]
    np.testing.assert_array_equal(run.observed["stacked"]["pair"][1]["a"], angle[:, 0])
    mean, peak, fourier = run.observed["sums"]
    np.testing.assert_allclose(mean, rate.mean(0), atol=steps * EPS)
    np.testing.assert_array_equal(peak, np.abs(angle).max(0))
    phases = np.exp(-2j * np.pi * frequencies[:, None] * np.asarray(run.times))
    np.testing.assert_allclose(fourier, phases @ np.asarray(angle), atol=2 * steps * EPS)


# ---- Derivatives ----


@dataclasses.dataclass(frozen=True)
class Task:
    """A misfit of a pendulum run whose observer closes over a traced value."""

    steps: int = 75
    every: int = 1
    adjoint: Any = sv.StoreAll()  # noqa: RUF009
    accumulate: bool = False

    def misfit(self, p):
        def see(state):
            return state["angle"] * p["gain"] + jnp.cos(state["rate"])

        observe = (see, sv.Mean(see), sv.Fourier(see, p["frequency"])) if self.accumulate else see
        run = sv.simulate(
            Pendulum(p["stiffness"]),
            {"angle": p["angle"], "rate": p["rate"], "count": jnp.asarray(0)},
            steps=self.steps,
            dt=p["dt"],
            inputs={"push": p["push"]},
            observe=observe,
            every=self.every,
            adjoint=self.adjoint,
        )
        leaves = jax.tree.leaves(run.observed) + [run.final["rate"]]  # noqa: RUF005
        return sum(jnp.mean(jnp.abs(x) ** 2) for x in leaves)


def point(steps, dtype=jnp.float64):
    p = {
        "stiffness": STIFFNESS,
        "angle": start()["angle"],
        "rate": start()["rate"],
        "push": pushes(steps)["push"],
        "gain": jnp.asarray(1.7),
        "dt": jnp.asarray(0.05),
        "frequency": jnp.array([0.2, 0.4]),
    }
    return {k: v.astype(dtype) for k, v in p.items()}


@pytest.mark.parametrize("name", ["stiffness", "angle", "rate", "push", "gain", "dt"])
@pytest.mark.parametrize("adjoint", [sv.StoreAll(), sv.Checkpoint(3)])
def test_taylor_remainders_of_a_plain_equation(name, adjoint):
    p = point(75)
    d = {k: jnp.zeros_like(v) for k, v in p.items()}
    d[name] = 0.3 * p[name] * jax.random.normal(jax.random.key(1), p[name].shape)
    sv.check_gradient(Task(adjoint=adjoint).misfit, p, d, hessian=True, tolerance=0.05).check()


@pytest.mark.parametrize(("steps", "every"), [(97, 1), (131, 7), (200, 66)])
@pytest.mark.parametrize("levels", [2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_checkpoints_give_the_gradient_of_store_all(steps, every, levels):
    task = Task(steps, every, accumulate=True)
    p = point(steps)
    reference = jax.jit(jax.value_and_grad(task.misfit))(p)
    given = jax.jit(jax.value_and_grad(dataclasses.replace(task, adjoint=sv.Checkpoint(levels)).misfit))(p)
    close(given, reference, 1e-12)


@pytest.mark.slow
def test_checkpoints_give_the_gradient_of_store_all_in_float32():
    task, p = Task(97, accumulate=True), point(97, jnp.float32)
    reference = jax.value_and_grad(task.misfit)(p)
    given = jax.value_and_grad(dataclasses.replace(task, adjoint=sv.Checkpoint(3)).misfit)(p)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(given))
    close(given, reference, 1e-5)


def test_forward_and_reverse_mode_compose():
    task, steps = Task(40, adjoint=sv.Checkpoint(2)), 40
    p = point(steps)

    def f(x):
        return task.misfit(p | {"stiffness": x})

    hessians = [
        jax.jacfwd(jax.jacrev(f)),
        jax.jacrev(jax.jacfwd(f)),
        jax.jacrev(jax.jacrev(f)),
        jax.jacfwd(jax.jacfwd(f)),
    ]
    values = [np.asarray(jax.jit(h)(STIFFNESS)) for h in hessians]
    for value in values:
        np.testing.assert_allclose(value, values[0], atol=1e-12 * np.abs(values[0]).max())
    np.testing.assert_allclose(values[0], values[0].T, atol=1e-12 * np.abs(values[0]).max())


def test_batches_equal_a_loop():
    task = Task(40, adjoint=sv.Checkpoint(2), accumulate=True)
    ps = [point(40), {k: v * 1.1 for k, v in point(40).items()}]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *ps)
    both = jax.value_and_grad(task.misfit)
    looped = jax.tree.map(lambda *x: jnp.stack(x), *map(both, ps))
    close(jax.vmap(both)(batch), looped, 1e-13)
    close(jax.jit(jax.vmap(both))(batch), looped, 1e-13)


# ---- Precision ----


def test_python_scalars_and_double_inputs_do_not_promote_float32():
    with jax.numpy_dtype_promotion("standard"):
        run = sv.simulate(
            Pendulum(1.3),
            start(jnp.float32),
            steps=20,
            dt=np.float64(0.05),
            inputs={"push": np.full((20, 3), 0.1)},
            observe=(lambda s: s["angle"] * 2.0, sv.Mean(lambda s: s["rate"])),
        )
    floats = [x for x in jax.tree.leaves((run.final, run.observed)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert {x.dtype for x in floats} == {jnp.dtype("float32")} and run.times.dtype == jnp.float32


def test_a_state_that_is_about_to_lose_its_digits_is_told():
    with jax.enable_x64(False), pytest.warns(UserWarning, match=r"`state\['u'\]` is float64 and JAX will keep it as"):
        sv.simulate(Forget(), {"u": np.ones(2)}, steps=1, dt=0.1)


class Forget:
    def step(self, state, inputs, dt):
        return state


def test_an_equation_of_higher_precision_than_its_state_is_named():
    with pytest.raises(TypeError, match=r"float32.* to float64"):
        sv.simulate(Pendulum(STIFFNESS), start(jnp.float32), steps=3, dt=0.1)


# ---- Tracing ----


class Counting(eqx.Module):
    """Counts how often its step is traced."""

    rate: jax.Array
    traces: list = eqx.field(static=True)

    def step(self, state, inputs, dt):
        self.traces.append(1)
        return state * (1 - self.rate * dt)


def test_the_second_call_traces_nothing():
    traces = []

    def see(state):
        return state[0]

    def go(rate, dt, value):
        state = jnp.full(3, value)
        return sv.simulate(Counting(jnp.asarray(rate), traces), state, steps=30, dt=dt, observe=see, adjoint="auto")

    go(0.1, 0.5, 1.0)
    count = len(traces)
    assert count > 0
    go(0.2, 0.25, 2.0)
    go(0.3, jnp.asarray(0.1), 3.0)
    assert len(traces) == count


# ---- What went wrong ----


class Sum:
    def step(self, state, inputs, dt):
        return state + inputs


@pytest.mark.parametrize("every", [1, 7, 100])
@pytest.mark.parametrize("first", [0, 63, 64, 150, 262])
@pytest.mark.parametrize("adjoint", [sv.StoreAll(), sv.Checkpoint(3)])
def test_a_run_that_stops_being_finite_says_when(every, first, adjoint):
    steps = 263
    inputs = jnp.zeros(steps).at[first].set(jnp.inf)
    run = sv.simulate(Sum(), jnp.zeros(2), steps=steps, dt=0.1, inputs=inputs, every=every, adjoint=adjoint)
    assert run.status is sv.Status.NONFINITE and not run.status.ok
    assert first + 1 <= int(run.failed_step) <= min(first + STRETCH, steps)
    with pytest.raises(sv.SolverError, match=f"NONFINITE.*step {int(run.failed_step)} "):
        run.check()


def test_one_bad_member_of_a_batch_is_found():
    inputs = jnp.zeros((3, 100)).at[1, 70].set(jnp.nan)
    run = jax.vmap(lambda i: sv.simulate(Sum(), jnp.zeros(2), steps=100, dt=0.1, inputs=i))(inputs)
    assert run.status.tolist() == [0, 1, 0]
    with pytest.raises(sv.SolverError, match="1 of 3 batch entries"):
        run.check()


def test_check_needs_values():
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda x: sv.simulate(Sum(), x, steps=2, dt=0.1, inputs=jnp.zeros(2)).check().final)(jnp.zeros(2))


def test_the_result_passes_through_jit():
    run = jax.jit(lambda x: sv.simulate(Sum(), x, steps=2, dt=0.1, inputs=jnp.ones(2)))(jnp.zeros(2))
    assert run.check().status is sv.Status.OK and run.final.tolist() == [2.0, 2.0]


def decaying(**changes):
    arguments = {"steps": 4, "dt": 0.1, "inputs": jnp.zeros(4)} | changes
    state = arguments.pop("state", jnp.zeros(2))
    return sv.simulate(arguments.pop("equation", Sum()), state, **arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"steps": -3}, "`steps` must be at least 1, got -3"),
        ({"steps": True}, "`steps` must be a whole number"),
        ({"every": 0}, "`every` must be at least 1, got 0"),
        ({"dt": 0.1 + 0.2j}, "`dt` must be one real number"),
        ({"dt": np.array([0.1, 0.2])}, "`dt` must be one real number"),
        ({"dt": np.nan}, "`dt` must be finite"),
        ({"inputs": jnp.zeros(5)}, r"leading axis of length steps=4, got shape \(5,\)"),
        ({"inputs": 1.0}, r"leading axis of length steps=4, got shape \(\)"),
        ({"inputs": {"a": jnp.zeros(3)}}, r"inputs\['a'\]"),
        ({"adjoint": "checkpoint"}, r"`adjoint` must be StoreAll\(\), Checkpoint\(levels\) or \"auto\""),
        ({"adjoint": None}, "`adjoint` must be"),
        ({"state": jnp.zeros(2, int)}, "no floating array"),
        ({"state": {}}, "holds no array"),
        ({"memory": "many"}, "`memory` must be a positive number of bytes"),
        ({"memory": -1}, "`memory` must be a positive number of bytes"),
    ],
)
def test_bad_input_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        decaying(**changes)


def test_an_equation_without_a_step_is_named():
    with pytest.raises(TypeError, match=r"needs a method step\(state, inputs, dt\); dict has none"):
        decaying(equation={})


def test_an_observer_that_cannot_be_called_is_named():
    with pytest.raises(TypeError, match="`observe` must be a function of the state or an accumulator, got 3"):
        decaying(observe=[3])


def test_a_step_that_changes_the_state_is_named():
    class Grows:
        def step(self, state, inputs, dt):
            return jnp.concatenate([state, state])

    class Renames:
        def step(self, state, inputs, dt):
            return {"b": state["a"]}

    with pytest.raises(TypeError, match=r"float64\[2\] to float64\[4\]"):
        decaying(equation=Grows())
    with pytest.raises(TypeError, match="structure"):
        decaying(equation=Renames(), state={"a": jnp.zeros(2)})


# ---- What a run sees beside its arguments ----


class Decay:
    def __init__(self, rate):
        self.rate = rate

    def step(self, state, inputs, dt):
        return state * (1 - self.rate * dt)


@dataclasses.dataclass
class Unhashable:
    rate: Any
    step = Decay.step


@dataclasses.dataclass(frozen=True)
class Frozen:
    rate: Any
    step = Decay.step


LEVEL = 1.0


class Levelled(eqx.Module):
    def step(self, state, inputs, dt):
        return state * LEVEL


def seen_at_level(state):
    return state * LEVEL


def final(equation, **changes):
    return float(sv.simulate(equation, jnp.ones(1), steps=2, dt=1.0, **changes).final[0])


@pytest.mark.parametrize("kind", [Decay, Unhashable])
def test_a_changed_attribute_changes_the_answer(kind):
    equation = kind(0.5)
    assert final(equation) == 0.25
    equation.rate = 0.25
    assert final(equation) == 0.5625
    equation.rate = jnp.array([0.5])
    assert final(equation) == 0.25


def test_a_changed_global_changes_the_answer(monkeypatch):
    def observed(observe):
        return float(sv.simulate(Decay(0.5), jnp.ones(1), steps=2, dt=1.0, observe=observe).observed.ravel()[-1])

    for level in (1.0, 3.0):
        monkeypatch.setitem(globals(), "LEVEL", level)
        assert final(Levelled()) == level**2
        assert observed(seen_at_level) == 0.25 * level and observed(sv.Peak(seen_at_level)) == 0.5 * level


@pytest.mark.parametrize("rate", [np.array([0.5]), jnp.array([0.5])])
def test_a_frozen_data_class_may_hold_an_array(rate):
    assert final(Frozen(rate)) == 0.25


def test_a_plain_object_may_hold_what_is_differentiated():
    for kind in (Decay, Frozen):
        slope = jax.grad(lambda r, kind=kind: sv.simulate(kind(r), jnp.ones(()), steps=2, dt=1.0).final)(0.25)
        assert abs(float(slope) + 1.5) < 8 * EPS


def test_equal_data_classes_share_a_run():
    """No trace for a fresh object that is equal, and none for the same one again."""
    traces = itertools.count()

    @dataclasses.dataclass(frozen=True)
    class Traced:
        rate: float

        def step(self, state, inputs, dt):
            next(traces)
            return state * (1 - self.rate * dt)

    final(Traced(0.5))
    before = next(traces)
    assert before > 0
    final(Traced(0.5))
    assert next(traces) == before + 1


# ---- A budget that nothing fits ----


def cost(p, **changes):
    run = sv.simulate(
        Pendulum(p),
        start(),
        steps=400,
        dt=0.1,
        memory="1kB",
        inputs=pushes(400),
        observe=lambda s: s["rate"],
        **changes,
    )
    return jnp.sum(run.observed**2)


def test_memory_that_is_too_small_refuses_a_gradient_and_nothing_else():
    """No reverse sweep, no refusal: the run and its forward derivative are those of any strategy."""
    value, slope = jax.jvp(cost, (STIFFNESS,), (STIFFNESS,))
    expected = jax.jvp(lambda p: cost(p, adjoint=sv.StoreAll()), (STIFFNESS,), (STIFFNESS,))
    close((value, slope), expected, 1e-12)
    with pytest.raises(ValueError, match="No adjoint strategy fits") as caught:
        jax.eval_shape(jax.grad(cost), STIFFNESS)
    text = str(caught.value)
    for option in ("StoreAll()", "Checkpoint(levels=2)", "Checkpoint(levels=4)", "budget 1.0 kB", "cost"):
        assert option in text


def test_a_nonlinear_state_needs_the_memory_too():
    def misfit(angle):
        return sv.simulate(Pendulum(STIFFNESS), start() | {"angle": angle}, steps=400, dt=0.1, memory="1kB").final[
            "rate"
        ][0]

    with pytest.raises(ValueError, match="No adjoint strategy fits"):
        jax.eval_shape(jax.grad(misfit), start()["angle"])
