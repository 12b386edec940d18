"""Accumulators keep a running result of constant size, whatever they look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.observe import accumulates, is_observer


class Clock:
    """The state is a pair (n, n^2) after n steps."""

    def step(self, state, inputs, dt):
        n = state["n"] + 1
        return {"n": n, "square": n * n}


def run(observe, steps=12, every=1):
    state = {"n": jnp.zeros(()), "square": jnp.zeros(())}
    return sv.simulate(
        Clock(), state, steps=steps, dt=0.25, observe=observe, every=every, adjoint=sv.StoreAll()
    ).observed


def test_mean_and_peak_of_trees():
    mean = run(sv.Mean(lambda s: {"a": s["n"], "b": jnp.stack([s["n"], -s["square"]])}))
    assert float(mean["a"]) == 6.5 and mean["b"].tolist() == [6.5, -np.mean(np.arange(1, 13) ** 2)]
    peak = run(sv.Peak(lambda s: (s["n"] * (-1) ** s["n"], -s["square"])), every=5)
    assert [float(x) for x in peak] == [10.0, 100.0]


@pytest.mark.parametrize("every", [1, 4])
def test_fourier_is_the_discrete_sum(every):
    f = [0.0, 0.13, 0.5]
    ours = run(sv.Fourier(lambda s: jnp.stack([s["n"], s["square"]]), f), every=every)
    n = np.arange(every, 13, every)
    exact = np.exp(-2j * np.pi * np.outer(f, 0.25 * n)) @ np.stack([n, n**2], 1)
    np.testing.assert_allclose(ours, exact, atol=1e-12)


def test_frequencies_are_a_list():
    with pytest.raises(ValueError, match=r"`frequencies` must have shape \(n,\), got \(\)"):
        sv.Fourier(lambda s: s, jnp.asarray(0.3))


def test_results_of_no_observation_are_zero():
    assert float(run(sv.Mean(lambda s: s["n"]), every=50)) == 0.0


def test_a_user_writes_an_accumulator():
    class Last:
        def start(self, state):
            return jnp.zeros(2)

        def update(self, total, state, time):
            return jnp.stack([state["n"], time])

        def result(self, total, count):
            return {"last": total, "count": count}

    seen = run(Last(), every=4)
    assert seen["last"].tolist() == [12.0, 3.0] and seen["count"] == 3


def test_kinds():
    assert is_observer(abs) and not accumulates(abs)
    assert accumulates(sv.Mean(abs)) and is_observer(sv.Mean(abs)) and not is_observer([abs])


def test_memory_of_an_accumulator_does_not_grow_with_the_steps():
    def bytes_of(steps):
        def go(x):
            return sv.simulate(Clock(), {"n": x, "square": x}, steps=steps, dt=0.1, observe=sv.Mean(lambda s: s["n"]),
                               adjoint=sv.StoreAll()).observed  # fmt: skip

        return jax.jit(go).lower(jnp.zeros(1000)).compile().memory_analysis().temp_size_in_bytes

    # The tick numbers, four bytes each, are all that grows.
    assert bytes_of(6400) - bytes_of(640) <= 3 * 4 * (6400 - 640)
