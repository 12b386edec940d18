"""A pytree of floating arrays as one real vector, and back; functions as pure functions of what they capture."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array


class Packing(eqx.Module):
    """How the floating leaves of a pytree lie in one real vector.

    Complex leaves give their real and imaginary parts, so that functions which are not holomorphic have a Jacobian
    like any other. Mixed precisions share the widest one; half precision is worked on in single precision. Leaves
    that are not floating are left out by `eqx.partition` before.
    """

    tree: Any = eqx.field(static=True)
    leaves: tuple[tuple[tuple[int, ...], Any], ...] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __init__(self, example: Any):
        flat, self.tree = jax.tree.flatten(example)
        self.leaves = tuple((jnp.shape(x), jnp.dtype(x.dtype)) for x in flat)
        self.dtype = jnp.result_type(jnp.float32, *(jnp.finfo(d).dtype for _, d in self.leaves))

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(math.prod(shape) * (2 if _complex(dtype) else 1) for shape, dtype in self.leaves)

    @property
    def precision(self) -> float:
        """The coarsest machine epsilon of the leaves."""
        return max(float(jnp.finfo(dtype).eps) for _, dtype in self.leaves)

    def expect(self, tree: Any, name: str) -> Any:
        """The tree itself, if it has this structure, these shapes and dtypes.

        Raises:
            ValueError: saying which leaf differs and how.
        """
        there = jax.tree.structure(tree)
        if there != self.tree:
            raise ValueError(f"{name} must have the structure of x0, {self.tree}, got {there}.")
        for (path, leaf), (shape, dtype) in zip(jax.tree_util.tree_leaves_with_path(tree), self.leaves, strict=True):
            given, kind = jnp.shape(leaf), jnp.asarray(leaf).dtype
            if given != shape or kind != dtype:
                raise ValueError(
                    f"{name}{jax.tree_util.keystr(path)} must have shape and dtype of x0, {dtype}{list(shape)}, got "
                    f"{kind}{list(given)}."
                )
        return tree

    def pack(self, tree: Any) -> Array:
        """The vector of a pytree with this structure and these shapes."""
        parts = []
        for x in jax.tree.leaves(tree):
            pieces = (jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else (x,)
            parts += [jnp.ravel(piece).astype(self.dtype) for piece in pieces]
        return jnp.concatenate(parts) if parts else jnp.zeros((0,), self.dtype)

    def unpack(self, vector: Array) -> Any:
        """The pytree of a vector."""
        out, at = [], 0
        for shape, dtype in self.leaves:
            size = math.prod(shape)
            real = jnp.finfo(dtype).dtype
            piece = vector[at : at + size].reshape(shape).astype(real)
            at += size
            if _complex(dtype):
                piece = lax.complex(piece, vector[at : at + size].reshape(shape).astype(real))
                at += size
            out.append(piece)
        return jax.tree.unflatten(self.tree, out)


def _complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def hoist(function: Callable, *examples: Any) -> tuple[Callable, list]:
    """A function as a pure function of the arrays that it captures.

    Traced once, afresh: nothing is looked up in a cache under the identity of the function, so a closure whose
    captured values have changed gives its new values.

    Returns:
        (pure, captured) with `pure(captured, *arguments)` equal to `function(*arguments)`.
    """
    closed, shapes = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*examples)
    out_tree = jax.tree.structure(shapes)

    def pure(captured: list, *arguments: Any) -> Any:
        call = jaxpr_as_fun(closed.replace(consts=list(captured)))
        return jax.tree.unflatten(out_tree, call(*jax.tree.leaves(arguments)))

    return pure, list(closed.consts)


def norm2(vector: Array) -> Array:
    """Euclidean norm. In single precision free of overflow and underflow in between: 1e-25 squared is no zero."""
    if vector.dtype == jnp.float64:
        return jnp.sqrt(dot(vector, vector))
    largest = jnp.max(jnp.abs(vector), initial=0.0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.sqrt(jnp.sum(jnp.square(vector / scale)))


def dot(a: Array, b: Array) -> Array:
    """Inner product in full precision on every device."""
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
