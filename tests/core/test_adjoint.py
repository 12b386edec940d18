"""Nested scans equal one scan; a stretch with a derivative of its own is differentiated in every mode."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

import solvers as sv
from solvers.core.adjoint import differentiable_stretch, nested_scan, remat, segment_sizes


@pytest.mark.parametrize("levels", [1, 0, -2, True])
def test_fewer_than_two_levels_are_refused(levels):
    with pytest.raises(ValueError, match="at least 2 or None"):
        sv.Checkpoint(levels)


@hypothesis.given(
    st.integers(1, 5000), st.integers(2, 5), st.sampled_from([0.0, 1.0, 8.0]), st.sampled_from([1.0, 16.0])
)
def test_segments_shrink_and_stay_near_their_optimum(length, levels, step, state):
    sizes = segment_sizes(length, levels, step, state)
    assert len(sizes) == levels - 1 and all(
        1 <= b <= a <= length for a, b in zip((length, *sizes), sizes, strict=False)
    )
    if step and length > 100:
        stored, outer = 0.0, length
        for size in sizes:
            stored, outer = stored + state * math.ceil(outer / size), size
        stored += step * outer
        # All terms equal at the optimum.
        optimum = levels * (state ** (levels - 1) * step * length) ** (1 / levels)
        assert stored < 1.6 * optimum + levels * (state + step)


def body(carry, x):
    return carry + jnp.sin(carry) * x, carry * x


@pytest.mark.parametrize("sizes", [(), (7,), (10, 3), (64,), (13, 5, 2), (1,)])
@pytest.mark.parametrize("length", [1, 10, 37, 40])
@pytest.mark.parametrize("wrap", [remat, lambda f: f])
def test_nested_scans_equal_one_scan(sizes, length, wrap):
    xs = jnp.linspace(-1, 1, length)

    def leaf(carry, xs, n):
        assert xs.shape[0] == n
        return lax.scan(body, carry, xs)

    def run(c):
        return nested_scan(leaf, c, xs, length, [(s, wrap) for s in sizes])

    start = jnp.array(0.3)
    plain, nested = lax.scan(body, start, xs), run(start)
    for a, b in zip(plain, nested, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    slope = jax.grad(lambda c: run(c)[0] ** 2)(start)
    np.testing.assert_allclose(slope, jax.grad(lambda c: lax.scan(body, c, xs)[0] ** 2)(start), rtol=1e-13)


def test_no_steps_change_nothing():
    assert nested_scan(lambda *_: 1 / 0, 5, jnp.zeros(0), 0, [(3, remat)]) == (5, None)


def square(args):
    return {"y": args["x"] ** 2 * args["a"], "count": args["count"] + 1}


def taped(args):
    return square(args), (args["x"],)


def pull(args, tape, bar):
    (x,) = tape
    zero = np.zeros(jnp.shape(args["count"]), jax.dtypes.float0)
    return {"x": 2 * x * args["a"] * bar["y"], "a": jnp.sum(x**2 * bar["y"]), "count": zero}


def test_a_stretch_is_differentiated_by_hand_in_every_mode():
    function = differentiable_stretch(square, taped, pull)
    a, count = jnp.asarray(1.5), jnp.asarray(3)

    def f(x, a):
        return jnp.sum(jnp.sin(function({"x": x, "a": a, "count": count})["y"]))

    def g(x, a):
        return jnp.sum(jnp.sin(x**2 * a))

    x = jnp.linspace(0.1, 1, 4)
    np.testing.assert_allclose(f(x, a), g(x, a), rtol=1e-15)
    for transform in (
        lambda h: jax.grad(h, argnums=(0, 1)),
        lambda h: jax.jacfwd(h),
        lambda h: jax.jacfwd(jax.grad(h)),
        lambda h: jax.jacrev(jax.grad(h)),
        lambda h: jax.jacrev(jax.jacfwd(h)),
        lambda h: jax.jacfwd(jax.jacfwd(h)),
        lambda h: jax.jacrev(jax.grad(h, argnums=1)),
        lambda h: jax.jit(jax.hessian(h)),
    ):
        for ours, exact in zip(jax.tree.leaves(transform(f)(x, a)), jax.tree.leaves(transform(g)(x, a)), strict=True):
            np.testing.assert_allclose(ours, exact, atol=1e-13)
    batch = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(jax.grad(f), (0, None))(batch, a), jax.vmap(jax.grad(g), (0, None))(batch, a))
