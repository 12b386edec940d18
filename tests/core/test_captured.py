"""Fingerprints change when what a function captures changes, and only then."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core.captured import fingerprint

LEVEL = 1.0


def reads_a_global(x):
    return LEVEL * x


def calls_another(x):
    return reads_a_global(x)


class Model:
    def __init__(self):
        self.scale, self.table, self.array = 1.0, {"a": [1]}, np.zeros(3)

    def map(self, x):
        return self.scale * x


def change_scale(m):
    m.scale = 2.0


def change_depth(m):
    m.table["a"][0] = 2


def change_in_place(m):
    m.array[1] = 1.0


def change_sign_of_zero(m):
    m.scale = -0.0


@pytest.mark.parametrize("change", [change_scale, change_depth, change_in_place, change_sign_of_zero])
@pytest.mark.parametrize("wrap", [lambda m: m.map, lambda m: lambda x: m.map(x), lambda m: functools.partial(m.map)])
def test_attributes_are_seen(change, wrap):
    model = Model()
    if change is change_sign_of_zero:
        model.scale = 0.0
    function = wrap(model)
    before = fingerprint(function)
    assert before == fingerprint(function) and hash(before) == hash(fingerprint(function))
    change(model)
    assert before != fingerprint(function)


def test_globals_are_seen_through_calls(monkeypatch):
    before = [fingerprint(f) for f in (reads_a_global, calls_another)]
    monkeypatch.setitem(globals(), "LEVEL", 2.0)
    after = [fingerprint(f) for f in (reads_a_global, calls_another)]
    assert before[0] != after[0] and before[1] != after[1]


def test_a_circle_ends():
    loop = []
    loop.append(loop)
    function = lambda x: (x, loop)  # noqa: E731
    assert fingerprint(function) == fingerprint(function)


def test_arrays_among_the_arguments_are_not_looked_at():
    assert fingerprint((jnp.cos, jnp.zeros(3), np.ones(2))) == fingerprint((jnp.cos, jnp.ones(3), np.zeros(2)))


def test_what_a_function_only_writes_to_is_no_part_of_it():
    """Counters of calls, in all ways to write one; what is read as well as written does count."""
    calls, numbers, total, told = [], {"n": 0}, 0, set()

    def count(x):
        nonlocal total
        calls.append(x)
        numbers["n"] += 1
        total += 1
        told.add(x)
        return x

    def read(x):
        calls.append(x)
        return len(calls) * x

    before, before_read = fingerprint(count), fingerprint(read)
    count(1.0)
    assert fingerprint(count) == before and fingerprint(read) != before_read
    assert fingerprint(lambda x: [count(y) for y in x]) != before


def test_what_looks_like_a_counter_and_is_none():
    """A method `add` that gives something back; a name that is bound again and read; one before a walrus."""

    class Shift:
        def __init__(self, by):
            self.by = by

        def add(self, x):
            return x + self.by

    shift, factor, scale = Shift(1.0), None, 2

    def lazy(x):
        nonlocal factor
        factor = 3 if factor is None else factor
        return factor * x

    def changed(function, change):
        before = fingerprint(function)
        change()
        return fingerprint(function) != before

    def triple():
        nonlocal factor
        factor = 4

    def halve():
        nonlocal scale
        scale = 1

    assert changed(lambda x: shift.add(x), lambda: setattr(shift, "by", 2.0))
    assert changed(lazy, triple)
    assert changed(lambda x: scale * (y := 2) + y * x, halve)
