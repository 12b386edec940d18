"""Nodes at origin + i * spacing, static under transformations."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import solvers as sv


@hypothesis.given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=3)
)
def test_nodes_lie_at_origin_plus_index_times_spacing(axes):
    shape, spacing, origin = zip(*axes, strict=True)
    grid = sv.Grid(shape, spacing, origin)
    assert grid.ndim == len(axes) and grid.shape == shape
    for axis, x in enumerate(grid.axes()):
        assert x.dtype == np.float64 and x.shape == (shape[axis],)
        np.testing.assert_array_equal(x, origin[axis] + spacing[axis] * np.arange(shape[axis]))
        assert grid.extent[axis] == (x[0], x[-1])


def test_one_number_serves_all_axes():
    assert sv.Grid((3, 4), 2) == sv.Grid((3, 4), (2.0, 2.0), (0.0, 0.0))
    assert sv.Grid(5, 1.0).shape == (5,)
    assert sv.Grid((5, 3), (0.5, 1)).spacing == (0.5, 1.0)


def test_a_grid_is_a_choice_not_a_leaf():
    grid = sv.Grid((3, 4), 2.0)
    assert jax.tree.leaves(grid) == [] and hash(grid) == hash(sv.Grid((3, 4), 2.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((), 1.0), "one, two or three axes"),
        (((2, 2, 2, 2), 1.0), "one, two or three axes"),
        (((0, 4), 1.0), r"at least 1, got shape=\(0, 4\)"),
        (((3, -4), 1.0), "at least 1"),
        (((3, 4), 0.0), "must be positive, got 0.0"),
        (((3, 4), (1.0, -1.0)), "must be positive"),
        (((3, 4), (1.0, 1.0, 1.0)), r"one per axis \(2 axes\)"),
        (((3, 4), float("nan")), "`spacing` must be finite"),
        (((3, 4), 1.0, float("inf")), "`origin` must be finite"),
        (((3, 4), 1.0, (0.0,)), "`origin` must be one number or one per axis"),
    ],
)
def test_bad_grids_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        sv.Grid(*arguments)
