"""How the loop is differentiated: strategies, nested scans, and the derivative of a stretch of steps.

Reverse mode needs, at every step, what the derivative of the step depends on. `StoreAll` keeps it for all steps.
`Checkpoint` keeps the state at the starts of segments and runs each segment again when the reverse sweep gets there;
with several levels the segments hold segments. A reversible strategy, which reconstructs the states backwards, would
be one more class here and one more branch in `march`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .checks import is_whole
from .linear_map import linear_map

# Number of steps between two looks for a NaN, and the most steps whose derivative is taken in one piece.
STRETCH = 64


class StoreAll(eqx.Module):
    """Keep what the derivative needs at every step: the fastest gradient, memory grows with the number of steps.

    Example:
        >>> StoreAll()
        StoreAll()
    """


class Checkpoint(eqx.Module):
    """Keep the state at the starts of nested segments and recompute inside them.

    With `levels=L` a run of T steps keeps about L * T**(1/L) states and costs L - 1 more forward runs than `StoreAll`.
    The gradient is the same to round-off. Any number of steps is allowed.

    Args:
        levels: depth of the nesting, 2 or more; None for 2.

    Raises:
        ValueError: if `levels` is less than 2.

    Example:
        >>> Checkpoint(levels=3)
        Checkpoint(levels=3)

    Reference:
        The nested form of Griewank and Walther, Evaluating Derivatives (2008), chapter 12.
    """

    levels: int | None = eqx.field(static=True)

    def __init__(self, levels: Any = None):
        if levels is not None and (not is_whole(levels) or levels < 2):
            raise ValueError(f"Checkpoint(levels=...) must be a whole number of at least 2 or None, got {levels!r}.")
        self.levels = None if levels is None else int(levels)


def segment_sizes(length: int, levels: int, step_bytes: float, state_bytes: float) -> tuple[int, ...]:
    """Lengths of the nested segments of a run of `length` steps, outermost first, without the run itself.

    Minimises sum_i state_bytes * K_i + step_bytes * K_last over K_1 ... K_levels with product >= length: all factors
    equal but the last, which is larger by state_bytes / step_bytes. Divisors of the length are preferred, since a
    remainder costs one more compilation of the step.
    """
    sizes = []
    remaining = length
    for level in range(levels - 1):
        left = levels - level
        ratio = state_bytes / max(step_bytes, 1.0)
        blocks = max((remaining / ratio) ** (1 / left), 1.0)
        wanted = max(round(remaining / blocks), 1)
        near = [k for k in range(max(round(wanted / 1.5), 1), round(wanted * 1.5) + 1) if remaining % k == 0]
        size = min(near, key=lambda k: abs(math.log(k / wanted))) if near else min(wanted, remaining)
        sizes.append(size)
        remaining = size
    return tuple(sizes)


def nested_scan(leaf: Callable, carry: Any, xs: Any, length: int, sizes: Sequence[tuple[int, Callable]]) -> tuple:
    """Scan over `length` steps in nested segments; `leaf(carry, xs, length)` runs the innermost ones.

    `sizes` lists (length of a segment, wrapper of its body), outermost first; the wrapper is `remat` or the identity.
    A remainder runs after the whole segments, so any length is allowed; `length=0` returns the carry and None.
    """
    if not length:
        return carry, None
    if not sizes:
        return leaf(carry, xs, length)
    (size, wrap), inner = sizes[0], sizes[1:]
    if size >= length:
        return nested_scan(leaf, carry, xs, length, inner)
    count, rest = divmod(length, size)
    segment = wrap(lambda c, x: nested_scan(leaf, c, x, size, inner))
    head = jax.tree.map(lambda x: x[: count * size].reshape(count, size, *x.shape[1:]), xs)
    carry, ys = lax.scan(segment, carry, head)
    ys = jax.tree.map(lambda y: y.reshape(count * y.shape[1], *y.shape[2:]), ys)
    if rest:
        tail = jax.tree.map(lambda x: x[count * size :], xs)
        carry, more = wrap(lambda c, x: nested_scan(leaf, c, x, rest, inner))(carry, tail)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, more)
    return carry, ys


def remat(function: Callable, *keep: str) -> Callable:
    """Recompute `function` in the reverse sweep instead of keeping its intermediate values, but for those named."""
    policy = jax.checkpoint_policies.save_only_these_names(*keep) if keep else None
    return jax.checkpoint(function, prevent_cse=False, policy=policy)


def differentiable_stretch(plain: Callable, taped: Callable, pull: Callable) -> Callable:
    """`plain(args)` with a derivative of its own: forward mode by JAX, reverse mode by hand.

    Args:
        plain: pytree of arrays -> pytree of arrays.
        taped: the same, returning (output, tape): all that `pull` may need.
        pull: (args, tape, cotangent of the output) -> cotangent of args; linear in the cotangent.

    Returns:
        A function equal to `plain` in value, and differentiable in every mode and to every order: the tangent is a
        `linear_map` whose transpose is `pull`.
    """
    function = jax.custom_jvp(plain)

    def rule(primals: tuple, tangents: tuple) -> tuple:
        (args,), (dots,) = primals, tangents
        leaves, tree = jax.tree.flatten(args)
        dot_leaves = tree.flatten_up_to(dots)
        # A tangent is symbolic where nobody asks for the derivative: what only it would need is dropped.
        moving = [i for i, d in enumerate(dot_leaves) if isinstance(d, (jax.Array, np.ndarray)) and _floats(d)]
        out, tape = taped(args)
        out_leaves, out_tree = jax.tree.flatten(out)
        smooth = [i for i, o in enumerate(out_leaves) if _floats(o)]

        def forward(residuals: Any, linear: list) -> list:
            leaves, _ = residuals

            def of_moving(values: list) -> list:
                new = list(leaves)
                for i, value in zip(moving, values, strict=True):
                    new[i] = value
                out = jax.tree.leaves(plain(jax.tree.unflatten(tree, new)))
                return [out[i] for i in smooth]

            return jax.jvp(of_moving, ([leaves[i] for i in moving],), (linear,))[1]

        def transpose(residuals: Any, cotangent: list) -> list:
            leaves, tape = residuals
            full = [np.zeros(o.shape, jax.dtypes.float0) for o in out_leaves]
            for i, c in zip(smooth, cotangent, strict=True):
                full[i] = c
            back = pull(jax.tree.unflatten(tree, leaves), tape, jax.tree.unflatten(out_tree, full))
            back_leaves = tree.flatten_up_to(back)
            return [back_leaves[i] for i in moving]

        dots_out = linear_map(forward, transpose, (leaves, tape), [dot_leaves[i] for i in moving])
        full = [np.zeros(o.shape, jax.dtypes.float0) for o in out_leaves]
        for i, d in zip(smooth, dots_out, strict=True):
            full[i] = d
        return out, jax.tree.unflatten(out_tree, full)

    function.defjvp(rule, symbolic_zeros=True)
    return function


def _floats(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
