"""Boundary entries: one for all, one per axis, or a pair per axis."""

import re

import numpy as np
import pytest

import solvers as sv
from solvers.pde.boundary import faces_of, layer_widths

A, F, R, P = sv.Absorbing(7), sv.Free(), sv.Rigid(), sv.Periodic()


@pytest.mark.parametrize(
    ("entry", "ndim", "faces"),
    [
        (A, 1, ((A, A),)),
        (F, 3, ((F, F),) * 3),
        ((F, A), 2, ((F, F), (A, A))),
        (((F, A), P), 2, ((F, A), (P, P))),
        ([[F, A], [R, R]], 2, ((F, A), (R, R))),
        (((F, A),), 1, ((F, A),)),
    ],
)
def test_entries_are_spread_over_the_faces(entry, ndim, faces):
    assert faces_of(entry, ndim) == faces


@pytest.mark.parametrize(
    ("entry", "ndim", "words"),
    [
        ((F,), 2, "one entry per axis"),
        ((F, A), 1, "this grid has 1 axis,"),
        ((F, A, R), 2, "this grid has 2 axes,"),
        (((F, A, R), F), 2, "neither Absorbing, Free, Rigid or Periodic nor a pair"),
        (("free", A), 2, "'free' is neither"),
        (None, 2, "got None"),
        (sv.Free, 2, "one entry for all faces"),
        (((P, F), F), 2, "periodic on both faces or on none"),
        (((F, P), F), 2, "periodic on both faces or on none"),
    ],
)
def test_wrong_nesting_is_named(entry, ndim, words):
    with pytest.raises(ValueError, match=words):
        faces_of(entry, ndim)


@pytest.mark.parametrize("width", [0, -1, True])
def test_wrong_widths_are_named(width):
    with pytest.raises(ValueError, match=re.escape(f"at least 1, got {width!r}")):
        sv.Absorbing(width)


def test_layers_lie_outside():
    assert layer_widths(((F, A), (P, P), (sv.Absorbing(2), R))) == ((0, 7), (0, 0), (2, 0))
    wave = sv.Wave(sv.Grid((20, 30), 1.0), 1.0, boundary=((F, A), P))
    assert wave.at_rest().pressure.shape == (27, 30)
    assert wave.pressure(wave.at_rest()).shape == (20, 30)


def test_the_width_may_be_an_integer_of_numpy():
    assert sv.Absorbing(np.int64(3)) == sv.Absorbing(3) and isinstance(sv.Absorbing(np.int64(3)).width, int)
    with pytest.raises(ValueError, match="whole number of cells"):
        sv.Absorbing(True)
