"""A value that may be computed and differentiated forwards, but through which no reverse sweep may pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_forward_only = Primitive("solvers_forward_only")


class Refusal:
    """What to say when a reverse sweep is asked for. All are equal to a cache: the words may hold changing numbers."""

    def __init__(self, words: str):
        self.words = words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refusal)

    def __hash__(self) -> int:
        return hash(Refusal)


def forward_only(tree: Any, refusal: Refusal) -> Any:
    """The pytree unchanged; `ValueError` with the words when a reverse sweep through its floating leaves is built.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> square = lambda x: forward_only(x, Refusal("no memory")) ** 2
        >>> float(square(jnp.float32(3.0))), float(jax.jvp(square, (3.0,), (1.0,))[1])
        (9.0, 6.0)
        >>> try:
        ...     slope = jax.grad(square)(3.0)
        ... except ValueError as error:
        ...     print(error)
        no memory
    """

    def mark(x: Any) -> Any:
        floats = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)
        return _forward_only.bind(x, refusal=refusal) if floats else x

    return jax.tree.map(mark, tree)


def _refuse(cotangent: Any, x: Any, *, refusal: Refusal) -> Any:
    raise ValueError(refusal.words)


_forward_only.def_impl(lambda x, **_: x)
_forward_only.def_abstract_eval(lambda x, **_: x)
ad.deflinear2(_forward_only, _refuse)
batching.primitive_batchers[_forward_only] = lambda args, dims, **kept: (_forward_only.bind(*args, **kept), dims[0])
mlir.register_lowering(_forward_only, mlir.lower_fun(lambda x, **_: x, multiple_results=False))
