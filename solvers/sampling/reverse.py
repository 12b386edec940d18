"""Generate samples from a score: one door, `generate`, for every method."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from ..core.budget import plan
from ..core.captured import fingerprint
from ..core.checks import check_finite, is_known, whole
from ..core.loop import simulate
from ..core.status import Status
from .flow import Flow, Watched, check_kinds
from .flow_methods import Heun
from .parallel import START, spread


def generate(
    score: Callable,
    noise: Any,
    key: Array,
    *,
    shape: tuple[int, ...],
    method: Any = None,
    condition: Any = None,
    denoise: bool = True,
    start: Any = None,
    first: int = 0,
    dtype: Any = None,
    with_path: bool = False,
    adjoint: Any = "auto",
    memory: str | float | int | None = None,
) -> Any:
    """Draw samples by letting noise flow along a score, from the largest noise level to the smallest.

    The score is any function score(x, sigma) = grad log p(x; sigma) of one sample, where x = alpha x0 + sigma eps and
    sigma is the marginal standard deviation, for every noise. At the end the mean of the data given what was reached
    is taken, x0 = (x + sigma^2 score) / alpha, which costs one more evaluation: what is left of the noise goes.

    Sample c uses the key fold_in(fold_in(key, c), n) in step n, whatever the size of the batch and the devices are. So
    a sample never depends on its neighbours, and a large set may be drawn in batches by `first`. On several devices
    the samples are shared out equally as far as their number can be divided. Works inside `jit`, `vmap` and `grad`;
    reverse mode through the whole of it keeps a few levels and recomputes the rest, as `adjoint` and `memory` say.
    New values of arrays, in the score, the noise or the method, trace nothing.

    A sample that stops being finite, or whose adaptive solve fails, is NaN throughout, and so is its derivative.

    Args:
        score: function (x, sigma) -> array like x, or (x, sigma, label) with the condition `Labels`. Its arrays, if it
            is a pytree, may be differentiated.
        noise: `VarianceExploding`, `VariancePreserving`, `SubVariancePreserving`, `Edm`.
        key: from `jax.random.key(seed)`.
        shape: shape of the result; the first axis counts the samples.
        method: `Heun`, `Ddim`, `DpmSolver`, `ProbabilityFlow`, `ReverseSde`, `PredictorCorrector`, `AnnealedLangevin`;
            by default `Heun()`.
        condition: what the samples must agree with: `Labels`, `Inpaint`, `LinearInverse`; None for nothing.
        denoise: whether to take the mean of the data at the end.
        start: x at the largest noise level, of the given shape; by default Gaussian noise. Differentiable.
        first: number of the first sample.
        dtype: of the samples, by default that of `start` or else of the noise.
        with_path: also return x after every step, not denoised, shape (samples, steps + 1, ...).
        adjoint: how reverse mode is done, as for `simulate`: "auto" stores every step where that fits into `memory`,
            and else keeps a few levels and recomputes the rest; `Checkpoint()` always does.
        memory: bytes for the reverse sweep of all samples on one device, such as "2GB"; default half of what is free.

    Returns:
        Samples of the given shape; with `with_path` a pair (samples, path).

    Raises:
        ValueError: for shapes that do not fit, a score of another shape than the sample, values that are not finite.
        TypeError: for a key, score or method of a wrong kind.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> noise = sv.VarianceExploding(0.01, 10.0)
        >>> score = sv.MixtureScore(jnp.array([[-2.0], [2.0]]), jnp.array([0.5, 0.5]), noise)
        >>> draws = generate(score, noise, jax.random.key(0), shape=(500, 1), method=sv.DpmSolver(steps=20))
        >>> draws.shape, bool(abs(jnp.mean(jnp.abs(draws)) - 2.0) < 0.1)
        ((500, 1), True)

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021.
    """
    method = Heun() if method is None else method
    shape = _checked_shape(shape)
    check_kinds(score, noise, key)
    _check_kinds(score, method, condition)
    if with_path and not hasattr(method, "advance"):
        raise ValueError(f"{type(method).__name__} has no fixed steps and so no path; take Heun.")
    dtype = _dtype(dtype, start, noise)
    start = None if start is None else _checked_start(start, shape, dtype)
    own = None if condition is None else condition.own(shape, dtype)
    index = jnp.arange(shape[0], dtype=jnp.uint32) + jnp.asarray(whole(first, "first", least=0), jnp.uint32)
    known = all(is_known(x) for x in jax.tree.leaves((score, noise, key, method, condition, start)))
    mesh, index = spread(index, shape[0]) if known else (None, index)
    lanes = shape[0] if mesh is None else shape[0] // mesh.size
    # Inside of the score the fingerprint reaches the programs within, too.
    watched = Watched(score, fingerprint((score, noise, method, condition)))
    task = _Task(watched, noise, key, method, condition)
    options = _Options(shape[1:], jnp.dtype(dtype), denoise, with_path, adjoint, memory, lanes)
    return _generate(*_placed(task, (index, start, own), mesh), options, mesh)


class _Task(eqx.Module):
    """What all samples share."""

    score: Any
    noise: Any
    key: Array
    method: Any
    condition: Any


class _Options(eqx.Module):
    shape: tuple = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    denoise: bool = eqx.field(static=True)
    with_path: bool = eqx.field(static=True)
    adjoint: Any = eqx.field(static=True)
    memory: Any = eqx.field(static=True)
    lanes: int = eqx.field(static=True)  # samples per device


def _placed(task: _Task, mine: tuple, mesh: Any) -> tuple[_Task, tuple]:
    """What all samples share on all devices, and each sample's own where the sample is."""
    if mesh is None:
        return task, mine
    arrays, still = eqx.partition(task, eqx.is_array)
    everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("chain",)))
    return eqx.combine(jax.device_put(arrays, everywhere), still), jax.device_put(mine, shared)


@eqx.filter_jit
def _generate(task: _Task, mine: tuple, options: _Options, mesh: Any) -> Any:
    arrays, still = eqx.partition(task, eqx.is_array)

    def local(arrays: Any, mine: tuple) -> Any:
        shared = eqx.combine(arrays, still)
        return jax.vmap(lambda own: _one(shared, own, options))(mine)

    if mesh is None:
        return local(arrays, mine)
    # No sample needs another one: each device works alone, and nothing is sent.
    each, everybody = PartitionSpec("chain"), PartitionSpec()
    return jax.shard_map(local, mesh=mesh, in_specs=(everybody, each), out_specs=each, check_vma=False)(arrays, mine)


def _one(task: _Task, mine: tuple, options: _Options) -> Any:
    """One sample, and its path where that is wanted."""
    index, start, own = mine
    noise, method, dtype = task.noise, task.method, options.dtype
    key = jax.random.fold_in(task.key, index)
    flow = Flow(task.score, noise) if task.condition is None else task.condition.guide(task.score, noise, own)
    largest, smallest = noise.ratio_max().astype(dtype), noise.ratio(noise.sigma_min).astype(dtype)
    if start is None:
        white = jax.random.normal(jax.random.fold_in(key, START), options.shape, dtype)
        start = noise.prior_deviation().astype(dtype) * white
    y = start / noise.scales(largest)[0]
    path = None
    if hasattr(method, "solve"):
        y, good = method.solve(flow, y)
    else:
        levels = jax.tree.map(lambda x: x.astype(dtype), method.levels(noise))
        march, state = _Reverse(method, flow, key), (y, method.memory(y), jnp.zeros((), jnp.int32))
        given: dict = dict(steps=jax.tree.leaves(levels)[0].shape[0], dt=jnp.ones((), dtype), inputs=levels)
        run = simulate(
            march,
            state,
            **given,
            observe=(lambda state: state[0]) if options.with_path else None,
            adjoint=_adjoint(march, state, given, options),
        )
        y, good = run.final[0], run.code == int(Status.OK)
        if run.observed is not None:
            alphas = jax.vmap(lambda k: noise.scales(k)[0])(levels["then"])
            moved = run.observed * alphas.reshape(-1, *[1] * len(options.shape))
            path = jnp.concatenate([start[None], moved])
    x = flow.denoise(y, smallest) if options.denoise else noise.scales(smallest)[0] * y
    if options.denoise and task.condition is not None:
        x = task.condition.finish(x, own)
    # A product, so that derivatives of a failed sample are NaN, too.
    x = x * jnp.where(good & jnp.all(jnp.isfinite(x)), 1.0, jnp.nan).astype(dtype)
    return (x, path) if options.with_path else x


def _adjoint(march: Any, state: Any, given: dict, options: _Options) -> Any:
    """The strategy for reverse mode: all samples of a device share its memory."""
    if not (isinstance(options.adjoint, str) and options.adjoint == "auto"):
        return options.adjoint
    table = plan(march, state, **given, memory=options.memory)
    for option in table.options:
        if option.bytes * options.lanes <= table.budget:
            return option.adjoint
    least = min(table.options, key=lambda option: option.bytes)
    if options.memory is not None:
        raise ValueError(
            f"No adjoint strategy fits: {options.lanes} samples need {least.bytes * options.lanes / 1e6:.3g} MB at "
            f"least, `memory` is {table.budget / 1e6:.3g} MB. Raise it, or draw fewer samples at once by `first`."
        )
    # Nobody asked for a limit, and forwards there is none.
    return least.adjoint


class _Reverse(eqx.Module):
    """A method as what `simulate` marches: the state carries the number of the step, which names the key."""

    method: Any
    flow: Any
    key: Array
    # A step may hold a whole network, which need not be compiled twice.
    unroll: ClassVar[int] = 1

    def stepper(self, dt: Array) -> "_Reverse":
        return self

    def step(self, state: tuple, level: Any) -> tuple:
        y, memory, n = state
        y, memory = self.method.advance(self.flow, jax.random.fold_in(self.key, n), y, memory, level)
        return y, memory, n + 1


# ---- Checks ----


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list) or len(shape) < 2:
        raise ValueError(f"`shape` must be (samples, ...) with the shape of a sample behind, got {shape!r}.")
    return tuple(whole(n, "shape") for n in shape)


def _check_kinds(score: Any, method: Any, condition: Any) -> None:
    if not (hasattr(method, "advance") or hasattr(method, "solve")):
        raise TypeError(f"`method` must be a method of generation such as Heun(steps=18), got {method!r}.")
    if condition is not None and not (hasattr(condition, "own") and hasattr(condition, "guide")):
        raise TypeError(f"`condition` must be Labels, Inpaint, LinearInverse or None, got {condition!r}.")
    if condition is not None and hasattr(condition, "check"):
        condition.check(score)


def _dtype(dtype: Any, start: Any, noise: Any) -> Any:
    found = dtype if dtype is not None else jnp.result_type(start) if start is not None else noise.sigma_min.dtype
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"`dtype` must be a real floating type, got {found}.")
    return jax.dtypes.canonicalize_dtype(found)


def _checked_start(start: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    if jnp.shape(start) != shape:
        raise ValueError(f"`start` must have the shape of the samples, {shape}, got {jnp.shape(start)}.")
    if is_known(start):
        check_finite(np.asarray(start), "start")
    return jnp.asarray(start, dtype)
