"""A linear map with a transpose of its own, for tangents whose automatic transpose is slow.

JAX transposes a linear function by transposing each of its operations. For a stencil written as slices of a buffer
that gives scattered additions, several times slower than the stencil itself. `linear_map` lets the author say what
the transpose is, and unlike `jax.custom_derivatives.linear_call` it may be differentiated again with respect to the
quantities that the map depends on (its residuals), so that Hessian-vector products work. Residuals that neither
direction needs are dropped, so that an author may offer all that could be needed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir, partial_eval

_linear_map = Primitive("solvers_linear_map")
_linear_map.multiple_results = True


def linear_map(forward: Callable, transpose: Callable, residuals: Any, linear: Any) -> Any:
    """Apply the linear map `forward(residuals, linear)`, to be transposed by `transpose(residuals, cotangent)`.

    Args:
        forward: linear in its second argument; takes and returns pytrees.
        transpose: linear in its second argument, which has the structure of the output of `forward`; returns the
            structure of `linear`.
        residuals: pytree of arrays on which the map depends, differentiable in its turn.
        linear: pytree of floating arrays.

    Returns:
        `forward(residuals, linear)`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> scale = lambda a, x: linear_map(lambda a, x: a * x, lambda a, y: a * y, a, x)
        >>> float(jax.grad(lambda x: scale(3.0, x) ** 2)(jnp.float32(2.0)))
        36.0
    """
    ahead, shapes = jax.make_jaxpr(forward, return_shape=True)(residuals, linear)
    back = jax.make_jaxpr(transpose)(residuals, shapes)
    flat_residuals, flat_linear = jax.tree.leaves(residuals), jax.tree.leaves(linear)
    flat_shapes, out_tree = jax.tree.flatten(shapes)
    split = len(flat_residuals)
    used = [a or b for a, b in zip(_used(ahead, split), _used(back, split), strict=True)]
    kept = [r for r, u in zip(flat_residuals, used, strict=True) if u]
    # What the functions capture travels with the residuals: it may be traced.
    first, second = len(kept), len(kept) + len(ahead.consts)
    kept = [jnp.asarray(r) for r in (*kept, *ahead.consts, *back.consts)]
    out = _linear_map.bind(
        *kept,
        *map(jnp.asarray, flat_linear),
        forward=_pruned(ahead, used, slice(first, second)),
        transpose=_pruned(back, used, slice(second, len(kept))),
        split=len(kept),
        out=tuple((s.shape, jnp.dtype(s.dtype)) for s in flat_shapes),
    )
    return jax.tree.unflatten(out_tree, out)


def _used(jaxpr: Any, split: int) -> list[bool]:
    """Which of the first `split` inputs the outputs depend on."""
    return partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=False)[1][:split]


def _pruned(jaxpr: Any, used: list[bool], captured: slice) -> Callable:
    """The traced function of (residuals, linear) as one of used residuals with what it captured, and linear."""
    keep = used + [True] * (len(jaxpr.jaxpr.invars) - len(used))
    pruned, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=keep)

    def call(residuals: Sequence, linear: Sequence) -> list:
        closed = ClosedJaxpr(pruned, list(residuals[captured]))
        return jaxpr_as_fun(closed)(*residuals[: sum(used)], *linear)

    return call


def _apply(*args: Any, forward: Callable, split: int, **_: Any) -> list:
    return forward(args[:split], args[split:])


@_linear_map.def_abstract_eval
def _shapes(*_: Any, out: tuple, **__: Any) -> list:
    return [ShapedArray(shape, dtype) for shape, dtype in out]


def _jvp(primals: tuple, tangents: tuple, **params: Any) -> tuple[list, list]:
    split = params["split"]
    out = _linear_map.bind(*primals, **params)
    out_dot = [None] * len(out)
    if any(not isinstance(t, ad.Zero) for t in tangents[split:]):
        linear_dot = [ad.instantiate_zeros(t) for t in tangents[split:]]
        out_dot = _linear_map.bind(*primals[:split], *linear_dot, **params)
    moving = [i for i, t in enumerate(tangents[:split]) if not isinstance(t, ad.Zero)]
    if moving:

        def of_residuals(*values: Any) -> list:
            residuals = list(primals[:split])
            for i, value in zip(moving, values, strict=True):
                residuals[i] = value
            return params["forward"](residuals, primals[split:])

        _, more = jax.jvp(of_residuals, [primals[i] for i in moving], [tangents[i] for i in moving])
        out_dot = [b if a is None else a + b for a, b in zip(out_dot, more, strict=True)]
    return out, [jnp.zeros_like(o) if d is None else d for o, d in zip(out, out_dot, strict=True)]


def _transpose(cotangents: list, *args: Any, forward: Callable, transpose: Callable, split: int, out: tuple) -> list:
    residuals, linear = args[:split], args[split:]
    cotangents = [ad.instantiate_zeros(c) for c in cotangents]
    linear_out = tuple(
        (a.aval.shape, a.aval.dtype) if ad.is_undefined_primal(a) else (a.shape, a.dtype) for a in linear
    )
    result = _linear_map.bind(
        *residuals, *cotangents, forward=transpose, transpose=forward, split=split, out=linear_out
    )
    return [None] * split + [r if ad.is_undefined_primal(a) else None for a, r in zip(linear, result, strict=True)]


def _batch(args: tuple, dims: tuple, *, forward: Callable, transpose: Callable, split: int, out: tuple) -> tuple:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if isinstance(d, int))
    residual_axes = [d if isinstance(d, int) else None for d in dims[:split]]
    # All linear arguments carry the batch axis: the transpose of this broadcast is the sum over the batch.
    linear = [
        jnp.moveaxis(a, d, 0) if isinstance(d, int) else jnp.broadcast_to(a, (size, *a.shape))
        for a, d in zip(args[split:], dims[split:], strict=True)
    ]

    def batched(function: Callable) -> Callable:
        def mapped(residuals: Any, values: Any) -> list:
            return jax.vmap(lambda r, v: function(r, v), in_axes=(residual_axes, 0))(list(residuals), list(values))

        return mapped

    result = _linear_map.bind(
        *args[:split],
        *linear,
        forward=batched(forward),
        transpose=batched(transpose),
        split=split,
        out=tuple(((size, *shape), dtype) for shape, dtype in out),
    )
    return result, [0] * len(result)


_linear_map.def_impl(_apply)
ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
mlir.register_lowering(_linear_map, mlir.lower_fun(partial(_apply), multiple_results=True))
