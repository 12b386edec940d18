"""A function with a derivative rule of its own that holds everywhere, inside of a differentiated scan too.

`jax.custom_jvp` forgets its rule when JAX splits the body of a `scan` into what a reverse sweep knows and what it does
not: a second derivative then goes through the iterations of a solver, or fails. A primitive keeps its rule.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

_ruled = Primitive("solvers_ruled")
_ruled.multiple_results = True


def ruled(function: Callable, rule: Callable) -> Callable:
    """`function` with the derivative that `rule` gives; it is never differentiated itself.

    Args:
        function: pytrees of arrays -> pytree of arrays; captures no traced values.
        rule: (arguments, tangents) -> (output, its tangent), as for `jax.custom_jvp`: a tangent that is zero is None,
            and that of an integer of dtype float0 or None.

    Example:
        >>> import jax
        >>> double = ruled(lambda x: 2 * x, lambda x, dx: (double(*x), 3 * dx[0]))
        >>> float(double(1.0)), float(jax.grad(double)(1.0))
        (2.0, 3.0)
    """

    def call(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        leaves = [jnp.asarray(x) for x in leaves]
        # A fresh function: JAX keeps traces under the identity of what it has traced.
        closed, shapes = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*jax.tree.unflatten(tree, leaves))
        out_leaves, out_tree = jax.tree.flatten(shapes)

        def of_leaves(primals: list, tangents: list) -> tuple[list, list]:
            out, dots = rule(jax.tree.unflatten(tree, primals), jax.tree.unflatten(tree, tangents))
            return out_tree.flatten_up_to(out), out_tree.flatten_up_to(dots)

        out = _ruled.bind(
            *leaves,
            function=jaxpr_as_fun(closed),
            rule=of_leaves,
            out=tuple((s.shape, jnp.dtype(s.dtype)) for s in out_leaves),
        )
        return jax.tree.unflatten(out_tree, out)

    return call


def _apply(*args: Array, function: Callable, **_: Any) -> list:
    return function(*args)


@_ruled.def_abstract_eval
def _shapes(*_: Any, out: tuple, **__: Any) -> list:
    return [ShapedArray(shape, dtype) for shape, dtype in out]


def _jvp(primals: tuple, tangents: tuple, *, rule: Callable, **_: Any) -> tuple[list, list]:
    out, dots = rule(list(primals), [None if isinstance(t, ad.Zero) else t for t in tangents])
    return out, [
        ad.Zero(jax.typeof(o).to_tangent_aval()) if _no_array(d) else d for o, d in zip(out, dots, strict=True)
    ]


def _no_array(x: Any) -> bool:
    return x is None or getattr(x, "dtype", None) == jax.dtypes.float0


def _batch(args: tuple, dims: tuple, *, function: Callable, rule: Callable, out: tuple) -> tuple:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if isinstance(d, int))
    axes = [d if isinstance(d, int) else None for d in dims]

    def batched(*args: Array) -> list:
        return jax.vmap(function, in_axes=axes, axis_size=size)(*args)

    def batched_rule(primals: list, tangents: list) -> tuple[list, list]:
        moving = [i for i, t in enumerate(tangents) if not _no_array(t)]
        fixed = []

        def one(primals: list, dots: list) -> tuple[list, list]:
            full: list = [None] * len(primals)
            for i, dot in zip(moving, dots, strict=True):
                full[i] = dot
            out, dots_out = rule(primals, full)
            fixed[:] = [_no_array(d) for d in dots_out]
            return list(out), [jnp.zeros(()) if _no_array(d) else d for d in dots_out]

        given = [tangents[i] for i in moving]
        out, dots = jax.vmap(one, in_axes=(axes, [axes[i] for i in moving]), axis_size=size)(primals, given)
        return out, [None if f else d for f, d in zip(fixed, dots, strict=True)]

    shapes = tuple(((size, *shape), dtype) for shape, dtype in out)
    return _ruled.bind(*args, function=batched, rule=batched_rule, out=shapes), [0] * len(out)


_ruled.def_impl(_apply)
ad.primitive_jvps[_ruled] = _jvp
batching.primitive_batchers[_ruled] = _batch
mlir.register_lowering(_ruled, mlir.lower_fun(partial(_apply), multiple_results=True))
