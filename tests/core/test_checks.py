"""What a user gives is named with count, value and place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.checks import as_field, check_finite, check_positive, is_known, whole


def test_values_are_known_outside_of_transformations_only():
    seen = []

    def look(x):
        seen.append(is_known(x))
        return x

    look(1.0), look(np.ones(2)), look(jnp.ones(2)), jax.jit(look)(1.0), jax.grad(look)(1.0), jax.vmap(look)(jnp.ones(2))
    assert seen == [True, True, True, False, False, False]


def test_a_field_is_spread_over_its_shape():
    assert as_field(2, "x", (3, 4)).shape == (3, 4) and as_field(2, "x").dtype == jnp.float64
    assert as_field(np.ones(3, np.float32), "x", (3,)).dtype == jnp.float32
    assert as_field(np.ones(3), "x", (3,), jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [int, bool, np.uint8, object, str])
def test_arrays_that_are_not_floating_are_named(dtype):
    with pytest.raises(ValueError, match="`x` must hold floating numbers, got dtype"):
        as_field(np.ones((2, 2), dtype), "x")


def test_values_that_are_not_finite_are_counted_and_located():
    array = np.ones((3, 4))
    array[1, 2], array[2, 3] = np.nan, -np.inf
    with pytest.raises(
        ValueError, match=r"`x` must be finite everywhere; 2 of 12 values are not, the first is nan at index \(1, 2\)"
    ):
        check_finite(array, "x")
    check_finite(np.ones(3), "x")


@pytest.mark.parametrize("value", [0.0, -1.0, np.array([1.0, 0.0]), np.array([1.0, np.nan])])
def test_values_that_are_not_positive_are_named(value):
    with pytest.raises(ValueError, match="`x` must be positive everywhere; 1 of"):
        check_positive(value, "x")


def test_traced_values_pass():
    assert jax.jit(lambda x: as_field(x, "x", (2,)))(jnp.array([jnp.nan, 1.0])).shape == (2,)
    jax.jit(lambda x: check_positive(x, "x"))(-1.0)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), jnp.int32(3)])
def test_every_integer_is_a_whole_number(value):
    assert whole(value, "steps") == 3 and type(whole(value, "steps")) is int
    assert sv.Checkpoint(value) == sv.Checkpoint(3)


@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float64(3), "3", np.array([3]), np.array([3, 4]), None])
def test_nothing_else_is_a_whole_number(value):
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        whole(value, "steps")


def test_no_value_is_known_inside_jit():
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        jax.jit(lambda n: whole(n, "steps"))(3)
