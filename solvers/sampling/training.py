"""Train a score on data: one door, `fit_score`."""

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checkpoint_file import CheckpointError, read
from ..core.checks import as_field, is_known, whole
from ..core.long_run import run, shapes
from ..core.status import SolverError, Status
from .flow import check_kinds, check_labels, check_noise, value_of
from .score_losses import Denoising, Levels

SMOOTHING = 0.02  # weight of the newest step in the loss that is told
CLIP = 1.0  # norm of a gradient
WARMUP = 100  # steps over which the learning rate rises


class ScoreFit(eqx.Module):
    """What `fit_score` returns.

    Attributes:
        score: the trained network with averaged weights, a function (x, sigma) or (x, sigma, label).
        network: the network with the last weights.
        steps: numbers of steps after which losses were noted.
        loss: loss of training there, averaged over about the last 50 steps.
        validation: loss of the averaged weights on the data held out, at the same noise; NaN without such data.
        status: OK, or NONFINITE.
        failed_step: step after which a weight was first found not finite, -1 if none was.
    """

    score: Any
    network: Any
    steps: np.ndarray
    loss: np.ndarray
    validation: np.ndarray
    status: Status
    failed_step: int

    def check(self) -> "ScoreFit":
        """Return the fit itself, or raise `SolverError` if training failed.

        Raises:
            SolverError: with the step.
        """
        if not self.status.ok:
            raise SolverError(
                f"{self.status.name}: a weight is not finite any more after step {self.failed_step}. Take a smaller "
                "learning rate."
            )
        return self


def fit_score(
    network: Any,
    noise: Any,
    data: Any,
    key: Array,
    steps: int,
    *,
    loss: Callable | None = None,
    batch: int = 128,
    learning_rate: float = 1e-3,
    average: float = 0.999,
    labels: Any = None,
    drop_labels: float = 0.1,
    validation: float = 0.1,
    every: int | None = None,
    optimiser: Any = None,
    checkpoint: str | Path | None = None,
    progress: Any = False,
) -> ScoreFit:
    """Train a network to be the score of noisy data at every noise level.

    By default it learns by denoising (`Denoising("edm")`, levels normal in log k around the spread of the data), with
    Adam after a rise of the learning rate over 100 steps, gradients clipped to norm one, and an exponential average of
    the weights, which is what `score` holds. Step n draws its batch, levels and noise from fold_in(key, n). The loop is
    `run`: with `checkpoint`, calling again with the same arguments resumes after an interruption, bit for bit, and more
    `steps` continue. The data are kept on the device.

    Args:
        network: `ScoreMlp`, `ScoreUNet`, or any Equinox module or pytree that is a function score(x, sigma) of one
            sample. One with a method `bound(noise, mean, spread)` is told the noise and the moments of the data first.
        noise: forward noise, such as `VarianceExploding(0.01, 10.0)`.
        data: samples; the first axis counts them.
        key: random key.
        steps: number of steps.
        loss: function (score, noise, data, key, labels) -> number, such as `Sliced()`.
        batch: samples per step, drawn with replacement.
        learning_rate: of Adam, after the rise.
        average: decay of the averaged weights per step, below 1.
        labels: whole numbers from 0, one per sample; the network is then called with a third argument, the label.
        drop_labels: probability with which a label is hidden (-1), for guidance.
        validation: share of the data that is held out, the last ones; 0 for none.
        every: steps between two notes of the losses, the last of which is of the end; by default a hundredth of the
            run.
        optimiser: an Optax optimiser in place of the one above.
        checkpoint: file to write to and to resume from.
        progress: True for a bar on a terminal, or a function of (steps done, steps).

    Returns:
        `ScoreFit(score, network, steps, loss, validation, status)`; `.check()` raises if a weight is not finite.

    Raises:
        ValueError: for data or numbers that cannot be right, a network whose output is not like a sample.
        CheckpointError: if the checkpoint belongs to another run (another network, other data) or cannot be written.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> data = jax.random.normal(jax.random.key(0), (500, 1)) ** 2
        >>> noise = sv.VarianceExploding(0.05, 10.0)
        >>> fit = fit_score(sv.ScoreMlp(1, jax.random.key(1), 16, 1), noise, data, jax.random.key(2), 40)
        >>> fit.loss.shape, fit.status.name, fit.score(data[0], 1.0).shape
        ((40,), 'OK', (1,))

    Reference:
        T. Karras, M. Aittala, T. Aila, S. Laine, Elucidating the Design Space of Diffusion-Based Generative Models,
        NeurIPS 2022, section 5.
    """
    steps, batch = whole(steps, "steps"), whole(batch, "batch")
    every = max(steps // 100, 1) if every is None else whole(every, "every")
    check_noise(noise)
    if loss is not None and not callable(loss):
        raise TypeError(f"`loss` must be a function (score, noise, data, key, labels), got {loss!r}.")
    data = _checked_data(data)
    labels = _checked_labels(labels, data.shape[0])
    for name, share in (("average", average), ("drop_labels", drop_labels), ("validation", validation)):
        if not 0 <= share < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {share!r}.")
    if not learning_rate > 0:
        raise ValueError(f"`learning_rate` must be positive, got {learning_rate!r}.")
    held = round(validation * data.shape[0])
    train, test = (jax.tree.map(lambda x, cut=cut: x[cut], (data, labels)) for cut in _cuts(data.shape[0], held))
    mean, spread = jnp.mean(train[0]), jnp.std(train[0])
    if not float(spread) > 0:
        raise ValueError("`data` are all the same; there is nothing to learn.")
    if hasattr(network, "bound"):
        network = network.bound(noise, mean, spread)
    _check_network(network, noise, data, key, labels)
    loss = Denoising("edm", Levels(-0.5, 1.2, spread)) if loss is None else loss
    optimiser = _adam(float(learning_rate)) if optimiser is None else optimiser
    shares = (jnp.asarray(1 - average, data.dtype), jnp.asarray(drop_labels, data.dtype))
    seen = fingerprint((network, noise, loss, optimiser))
    course = _Course(network, noise, train, key, loss, _Optimiser(optimiser), *shares, batch, seen)
    notes, start = _Notes(course, test if held else None, every), course.start()
    if checkpoint is not None:
        _check_file(Path(checkpoint), start)
    told = run(course, start, steps=steps, observe=notes, thin=1, checkpoint=checkpoint, progress=progress)
    return ScoreFit(
        course.with_weights(told.final["average"]),
        course.with_weights(told.final["weights"]),
        *_history(notes, told),
        told.status,
        told.failed_step,
    )


class _Optimiser(eqx.Module):
    """An Optax optimiser, whose two functions are choices and no arrays."""

    optimiser: Any = eqx.field(static=True)


class _Course(eqx.Module):
    """One step of training, as a function of the state and its number."""

    network: Any
    noise: Any
    train: tuple
    key: Array
    loss: Callable
    optimiser: _Optimiser
    # Arrays, since a checkpoint is compared with those.
    forget: Array
    drop: Array
    batch: int = eqx.field(static=True)
    seen: Any = eqx.field(static=True)

    def start(self) -> dict:
        """The state before the first step."""
        weights = eqx.filter(self.network, eqx.is_inexact_array)
        moments = self.optimiser.optimiser.init(weights)
        loss = jnp.zeros((), self.train[0].dtype)
        done = jnp.zeros((), jnp.int32)
        return {"weights": weights, "average": weights, "moments": moments, "loss": loss, "done": done}

    def with_weights(self, weights: Any) -> Any:
        """The network with other weights."""
        return eqx.combine(weights, eqx.filter(self.network, eqx.is_inexact_array, inverse=True))

    def value(self, weights: Any, data: Array, labels: Any, key: Array) -> Array:
        """The loss of a batch."""
        return self.loss(self.with_weights(weights), self.noise, data, key, labels)

    def __call__(self, state: dict, n: Array) -> dict:
        """One step."""
        pick, hide, key = jax.random.split(jax.random.fold_in(self.key, n), 3)
        which = jax.random.randint(pick, (self.batch,), 0, self.train[0].shape[0])
        data, labels = jax.tree.map(lambda x: x[which], self.train)
        if labels is not None:
            labels = jnp.where(jax.random.uniform(hide, labels.shape) < self.drop, -1, labels)
        value, slope = jax.value_and_grad(self.value)(state["weights"], data, labels, key)
        change, moments = self.optimiser.optimiser.update(slope, state["moments"], state["weights"])
        weights = jax.tree.map(lambda w, c: w + c.astype(w.dtype), state["weights"], change)
        # The average forgets its start faster than the decay alone would let it.
        newest = jnp.maximum(self.forget, 9 / (10 + n))
        averaged = jax.tree.map(lambda a, w: a + (newest * (w - a)).astype(a.dtype), state["average"], weights)
        share = jnp.maximum(1 / (n + 1), SMOOTHING)
        loss = state["loss"] + (share * (value - state["loss"])).astype(state["loss"].dtype)
        done = (n + 1).astype(jnp.int32)
        return {"weights": weights, "average": averaged, "moments": moments, "loss": loss, "done": done}


class _Notes(eqx.Module):
    """The losses after a step, on the data held out after every `every` steps alone.

    The run looks after each step, so that neither its checkpoints nor its number of steps know of `every`.
    """

    course: _Course
    test: tuple | None
    every: int = eqx.field(static=True)

    def __call__(self, state: dict) -> dict:
        due = state["done"] % self.every == 0
        none = jnp.full_like(state["loss"], jnp.nan)
        value = lax.cond(due, lambda average: self.validation(average), lambda average: none, state["average"])
        return {"loss": state["loss"], "validation": value, "due": due}

    def validation(self, average: Any) -> Array:
        """Loss of the averaged weights on the data held out."""
        if self.test is None:
            return jnp.full((), jnp.nan, self.course.train[0].dtype)
        # No step of training has this number, and all notes the same noise.
        key = jax.random.fold_in(self.course.key, 0xFFFFFFFF)
        data, labels = self.test
        return self.course.value(average, data, labels, key).astype(self.course.train[0].dtype)


@eqx.filter_jit
def _validated(notes: _Notes, average: Any) -> Array:
    return notes.validation(average)


def _history(notes: _Notes, told: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, losses and losses on the data held out, where they were noted and at the end."""
    loss, validation, due = (np.array(told.observed[name]) for name in ("loss", "validation", "due"))
    if len(due) and not due[-1]:
        due[-1], validation[-1] = True, _validated(notes, told.final["average"])
    return np.flatnonzero(due) + 1, loss[due], validation[due]


@functools.lru_cache
def _adam(learning_rate: float) -> Any:
    """The default optimiser; the same object for the same rate, so that a second fit compiles nothing."""
    import optax

    rate = optax.linear_schedule(0.0, learning_rate, WARMUP)
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))


# ---- Checks ----


def _checked_data(data: Any) -> Array:
    if not is_known(data):
        raise TypeError("`fit_score` works from the host, outside of jit, vmap and grad.")
    data = as_field(data, "data")
    if data.ndim < 2 or data.shape[0] < 2:
        raise ValueError(
            f"`data` needs a leading axis of at least two samples and the shape of a sample behind, got {data.shape}."
        )
    return data


def _checked_labels(labels: Any, count: int) -> Array | None:
    if labels is None:
        return None
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != (count,) or int(labels.min()) < 0:
        raise ValueError(
            f"`labels` must be whole numbers from 0, one for each of the {count} samples; got dtype {labels.dtype} and "
            f"shape {labels.shape}."
        )
    return labels.astype(jnp.int32)


def _cuts(count: int, held: int) -> tuple[slice, slice]:
    return slice(0, count - held), slice(count - held, count)


def _check_file(path: Path, start: dict) -> None:
    """CheckpointError, short enough to be read, where a checkpoint is of a network of other sizes."""
    try:
        theirs = str(read(path)[1].get("state"))
    except CheckpointError:
        return  # there is none, or `run` knows what to say
    leaves = (re.split(r", (?=\[')", told) for told in (shapes(start), theirs))
    for mine, other in itertools.zip_longest(*leaves, fillvalue="nothing"):
        if mine != other and theirs != "None":
            raise CheckpointError(
                f"The checkpoint {path} belongs to another run, of another network, optimiser or precision: the first "
                f"difference is {other} there, {mine} here. Give the network of that run, or name another file."
            )


def _check_network(network: Any, noise: Any, data: Array, key: Any, labels: Any) -> None:
    if not callable(network):
        raise TypeError(f"`network` must be a function score(x, sigma) of one sample, got {network!r}.")
    if not jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)):
        raise ValueError("`network` holds no floating array, so there is nothing to train.")
    check_kinds(network, noise, key)
    if labels is not None:
        check_labels(network, labels)
    extra = () if labels is None else (jnp.zeros((), jnp.int32),)
    told = network if labels is None else (lambda x, sigma: network(x, sigma, *extra))
    jax.eval_shape(lambda x: value_of(told, x, jnp.ones((), x.dtype)), data[0])
