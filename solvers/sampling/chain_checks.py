"""Checks at the door of `sample`: what can be seen before the first step."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.checks import check_finite, is_known, warn_of_truncation
from .metric import IdentityMetric
from .warmup import AdaptDiagonal, AdaptStep

TRACED = (
    "`sample` works from the host, outside of jit, vmap and grad. For derivatives of draws with respect to steps, "
    "metrics, starts or parameters of a density take `sv.pathwise`; for those of an average, `sv.sensitivity`."
)


def checked(kernel: Any, key: Any, positions: Any) -> tuple[Any, Any, int]:
    """Checked key and positions, and the number of chains."""
    for name in ("init", "step"):
        if not callable(getattr(kernel, name, None)):
            raise TypeError(
                f"`kernel` must have the methods init and step, such as Mala; {type(kernel).__name__} has no {name}."
            )
    if not all(is_known(x) for x in jax.tree.leaves((key, positions, kernel))):
        raise TypeError(TRACED)
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise TypeError(f"`key` must be one key, from jax.random.key(seed), got {key!r}.")
    leaves = jax.tree_util.tree_leaves_with_path(positions)
    if not leaves:
        raise ValueError("`positions` holds no array.")
    for path, x in leaves:
        name = f"positions{jax.tree_util.keystr(path)}"
        warn_of_truncation(x, name)
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise TypeError(
                f"`{name}` must hold real floating numbers, got dtype {jnp.result_type(x)}; convert it with "
                ".astype(float)."
            )
        check_finite(np.asarray(x), name)
    sizes = {jnp.shape(x)[:1] for _, x in leaves}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise ValueError(
            "`positions` needs a leading axis of chains, the same for all arrays and at least 1, got shapes "
            f"{[jnp.shape(x) for _, x in leaves]}; for one chain use positions[None]."
        )
    positions = jax.tree.map(jnp.asarray, positions)
    check_metric(kernel, positions)
    return key, positions, next(iter(sizes))[0]


def check_metric(kernel: Any, positions: Any) -> None:
    """ValueError unless the metric of the kernel, or its prior, fits the position of a chain."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), positions)
    for name in ("metric", "prior"):
        operator = getattr(kernel, name, None)
        if not all(hasattr(operator, method) for method in ("white", "sqrt", "sqrt_transpose")):
            continue

        def there_and_back(x: Any, operator: Any = operator) -> tuple[Any, Any]:
            white = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.white(x))
            return operator.sqrt(white), (white, operator.sqrt_transpose(x))

        why = ""
        try:
            moved, (white, back) = jax.eval_shape(there_and_back, one)
            fits = _shapes(moved) == _shapes(one) and _shapes(back) == _shapes(white)
        except (TypeError, ValueError) as problem:
            fits, why = False, f" ({problem})"
        if not fits:
            sizes = [x.shape for x in jax.tree.leaves(one)]
            raise ValueError(
                f"The `{name}` of {type(kernel).__name__} does not fit the positions, which have the shapes {sizes} "
                f"in one chain{why}: give it the structure and shapes of one position."
            )
    inner = getattr(kernel, "kernel", None)
    if inner is not None:
        check_metric(inner, positions)


def _shapes(tree: Any) -> tuple:
    return jax.tree.structure(tree), [x.shape for x in jax.tree.leaves(tree)]


def check_start(start: tuple[Any, Any], chains: int) -> None:
    """ValueError if the states, or what the kernel tells about the start beside them, are not finite."""
    states, _ = start
    if not hasattr(states, "position"):
        raise TypeError(f"The state of a kernel must have a `position`; {type(states).__name__} has none.")
    if not all(is_known(x) for x in jax.tree.leaves(start)):
        # A density that captures what is traced.
        raise TypeError(TRACED)
    ok, names = np.ones(chains, bool), []
    for path, x in jax.tree_util.tree_leaves_with_path(start):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            finite = np.isfinite(np.asarray(x)).reshape(chains, -1).all(axis=1)
            ok &= finite
            name = jax.tree_util.keystr(path[1:]).strip(".")
            names += [] if finite.all() or name in names else [name]
    if not ok.all():
        raise ValueError(
            f"{int((~ok).sum())} of {chains} chains start where {', '.join(names)} is not finite (chain "
            f"{int(np.flatnonzero(~ok)[0])} is the first): start where the density is positive and smooth, or look for "
            "a mistake in it (a logarithm of zero, a value outside of its support)."
        )


def takes_key(kernel: Any) -> bool:
    """Whether `init` takes a key beside the position."""
    try:
        parameters = inspect.signature(kernel.init).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters) > 1


def what_to_adapt(kernel: Any, adapt: Any, warmup: int) -> Any:
    """The user's wish, or what is right for the kernel; None for nothing."""
    known = hasattr(kernel, "step_size") and hasattr(kernel, "target_acceptance")
    if adapt is not None:
        if not (hasattr(adapt, "start") and hasattr(adapt, "windows")):
            raise TypeError(f"`adapt` must be AdaptStep(), AdaptDiagonal(), AdaptLowRank() or None, got {adapt!r}.")
        if not known or (adapt.windows and not hasattr(kernel, "metric")):
            raise ValueError(
                f"{type(kernel).__name__} has nothing that {type(adapt).__name__} could adapt; it would keep what it "
                "has."
            )
        if not warmup:
            raise ValueError(f"`adapt={adapt!r}` says what a warm-up adapts, and there is none: give `warmup` steps.")
        return adapt
    if not known or kernel.target_acceptance is None:
        return None
    return AdaptDiagonal() if isinstance(getattr(kernel, "metric", None), IdentityMetric) else AdaptStep()
