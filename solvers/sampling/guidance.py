"""Conditions on generated samples: class labels, known pixels, linear measurements."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checks import as_field, check_finite, is_known, whole
from ..core.short_recurrences import Cg
from .flow import Flow, Watched, check_labels

NOBODY = -1  # the label of a sample without one


class Labels(eqx.Module):
    """Samples of given classes, by a score that knows labels: score(x, sigma, label), label -1 for none.

    With classifier-free guidance the difference that the label makes is exaggerated,

        s = score(x, sigma, -1) + guidance (score(x, sigma, label) - score(x, sigma, -1)),

    which takes two evaluations. 1 (or None, without the second evaluation) gives the classes as they are; larger
    values give samples that are more typical and less diverse, of no density that one could name.

    Args:
        labels: whole numbers from 0, one per sample, or one for all.
        guidance: weight of the difference; None for 1. Differentiable.

    Raises:
        ValueError: for labels that are no whole numbers or negative.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> noise = sv.VarianceExploding(0.1, 20.0)
        >>> score = lambda x, sigma, label: (jnp.array([-3.0, 3.0, 0.0])[label] - x) / (1 + sigma**2)
        >>> told = Labels(jnp.array([0, 1]))
        >>> draws = sv.generate(score, noise, jax.random.key(0), shape=(2, 1), condition=told)
        >>> bool(draws[0, 0] < 0 < draws[1, 0])
        True

    Reference:
        J. Ho, T. Salimans, Classifier-Free Diffusion Guidance, arXiv 2207.12598 (2022), equation (6).
    """

    labels: Array
    guidance: Array | None

    def __init__(self, labels: Any, guidance: Any = None):
        self.labels = jnp.asarray(labels)
        if not jnp.issubdtype(self.labels.dtype, jnp.integer) or self.labels.ndim > 1:
            raise ValueError(f"`labels` must be whole numbers, one per sample or one for all, got {labels!r}.")
        if is_known(self.labels) and np.any(np.asarray(self.labels) < 0):
            raise ValueError("`labels` count from 0; a sample without a label needs no condition.")
        self.guidance = None if guidance is None else as_field(guidance, "guidance", ())

    def check(self, score: Any) -> None:
        """TypeError for a score that takes no label, ValueError for labels that it does not know."""
        check_labels(score, self.labels)

    def own(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The label of every sample."""
        if self.labels.shape not in ((), shape[:1]):
            raise ValueError(f"There are {self.labels.shape[0]} labels for {shape[0]} samples.")
        return jnp.broadcast_to(self.labels, shape[:1]).astype(jnp.int32)

    def guide(self, score: Callable, noise: Any, own: Array) -> Flow:
        """The flow of one sample."""
        return Flow(_Labelled(score, own, self.guidance), noise)

    def finish(self, x: Array, own: Array) -> Array:
        """The sample itself."""
        return x


class LinearInverse(eqx.Module):
    """Samples that explain measurements: data = A x0 + e, e ~ N(0, deviation^2 I), with the score as the prior.

    The mean D(y, k) of the data given a noisy y is replaced by the one given y and the measurements, as if x0 given y
    were Gaussian with the covariance C that Tweedie's second formula gives:

        D + C A^T (A C A^T + deviation^2)^-1 (data - A D),        C = k^2 dD/dy.

    This is exact where the data are Gaussian, at every noise level. For others it is an approximation: good where the
    measurements say little beyond one mode, biased in the weights of modes. The system is solved by conjugate gradients
    with vector-Jacobian products of the score, one product per iteration, until its residual, which bounds the error of
    A D, is small against the noise of the m measurements, sqrt(eps m) deviation. Where it stays above a tenth of
    sqrt(m) deviation, for the Jacobian of a network may be far from symmetric or the iterations too few, the sample is
    NaN. With `prior_deviation` s the cheaper C = k^2 s^2 / (k^2 + s^2) I is taken, which needs no product inside and
    always solves.

    Works with all methods. The score with a label is not supported beside it.

    Args:
        operator: A, a linear function of one sample; a pytree with arrays, if these change.
        data: what was measured, the shape of A x0, or with a leading axis of samples. Differentiable.
        deviation: standard deviation of the measurements, positive; differentiable.
        prior_deviation: s, positive; None for the covariance by the Jacobian.
        iterations: most products of conjugate gradients per evaluation.

    Raises:
        ValueError: for deviations that are not positive, data that are not finite or do not fit the operator; when
            samples are drawn, for an operator that is not linear.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> noise = sv.VarianceExploding(0.01, 20.0)
        >>> score = lambda x, sigma: -x / (1 + sigma**2)
        >>> told = LinearInverse(lambda x: x[:1] + x[1:], jnp.array([2.0]), 0.1)
        >>> draws = sv.generate(score, noise, jax.random.key(0), shape=(200, 2), condition=told)
        >>> bool(abs(jnp.mean(draws) - 1.0) < 0.1)
        True

    Reference:
        B. Boys and others, Tweedie Moment Projected Diffusions for Inverse Problems, Trans. Mach. Learn. Res. 2024,
        equation (8); J. Song and others, Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR 2023.
    """

    operator: Callable
    data: Array
    deviation: Array
    prior_deviation: Array | None
    iterations: int = eqx.field(static=True)

    def __init__(
        self, operator: Callable, data: Any, deviation: Any, prior_deviation: Any = None, iterations: int = 300
    ):
        if not callable(operator):
            raise TypeError(f"`operator` must be a linear function of one sample, got {operator!r}.")
        self.operator, self.data = operator, as_field(data, "data")
        self.deviation = _positive(deviation, "deviation")
        self.prior_deviation = None if prior_deviation is None else _positive(prior_deviation, "prior_deviation")
        self.iterations = whole(iterations, "iterations")

    def own(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The data of every sample."""
        out = jax.eval_shape(self.operator, jax.ShapeDtypeStruct(shape[1:], dtype))
        if not hasattr(out, "shape") or self.data.shape not in (out.shape, (shape[0], *out.shape)):
            raise ValueError(
                f"`data` must have the shape of what the operator returns, {getattr(out, 'shape', out)}, or that with "
                f"a leading axis of {shape[0]} samples; got {self.data.shape}."
            )
        _check_linear(self.operator, shape[1:], jnp.dtype(dtype))
        return jnp.broadcast_to(self.data, (shape[0], *out.shape)).astype(dtype)

    def guide(self, score: Callable, noise: Any, own: Array) -> Any:
        """The flow of one sample."""
        return _Informed(Flow(score, noise), self.operator, own, self.deviation, self.prior_deviation, self.iterations)

    def finish(self, x: Array, own: Array) -> Array:
        """The sample itself."""
        return x


class Inpaint(eqx.Module):
    """Samples with known parts: the unknown parts are drawn given the known ones.

    A `LinearInverse` whose operator keeps the known parts, with the smallest noise level as deviation: exact where the
    data are Gaussian, an approximation elsewhere. At the end the known parts are put in place, and the unknown ones are
    denoised like those of any other sample.

    Args:
        known: the sample with the known parts, in its shape, or with a leading axis of samples; values of unknown parts
            do not matter. Differentiable.
        mask: True where the sample is known, in the shape of one sample.
        prior_deviation: see `LinearInverse`.
        iterations: see `LinearInverse`.

    Raises:
        ValueError: for a mask that is not boolean or does not fit, known parts that are not finite.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> noise = sv.VarianceExploding(0.01, 20.0)
        >>> score = sv.MixtureScore(jnp.zeros(2), jnp.array([[1.0, 0.9], [0.9, 1.0]]), noise)
        >>> told = Inpaint(jnp.array([2.0, 0.0]), jnp.array([True, False]))
        >>> draws = sv.generate(score, noise, jax.random.key(0), shape=(300, 2), condition=told)
        >>> bool(jnp.all(draws[:, 0] == 2.0)), bool(abs(jnp.mean(draws[:, 1]) - 1.8) < 0.15)
        (True, True)
    """

    known: Array
    mask: Array
    prior_deviation: Array | None
    iterations: int = eqx.field(static=True)

    def __init__(self, known: Any, mask: Any, prior_deviation: Any = None, iterations: int = 300):
        self.mask = jnp.asarray(mask)
        if self.mask.dtype != bool:
            raise ValueError(f"`mask` must be boolean, True where the sample is known, got dtype {self.mask.dtype}.")
        known = jnp.asarray(known)
        if known.shape[known.ndim - self.mask.ndim :] != self.mask.shape or known.ndim > self.mask.ndim + 1:
            raise ValueError(
                f"`known` must have the shape of the mask, {self.mask.shape}, or that with a leading axis of samples; "
                f"got {known.shape}."
            )
        if is_known(known) and is_known(self.mask):
            check_finite(np.asarray(jnp.where(self.mask, known, 0)), "known")
        self.known = jnp.where(self.mask, known, 0).astype(jnp.result_type(known.dtype, jnp.float32))
        self.prior_deviation = None if prior_deviation is None else _positive(prior_deviation, "prior_deviation")
        self.iterations = whole(iterations, "iterations")

    def own(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The known parts of every sample."""
        if self.mask.shape != shape[1:] or self.known.shape not in (shape, shape[1:]):
            raise ValueError(
                f"`mask` must have the shape of a sample, {shape[1:]}, and `known` that or {shape}; got "
                f"{self.mask.shape} and {self.known.shape}."
            )
        return jnp.broadcast_to(self.known, shape).astype(dtype)

    def guide(self, score: Callable, noise: Any, own: Array) -> Any:
        """The flow of one sample."""
        keep = _Keep(self.mask)
        return _Informed(Flow(score, noise), keep, own, noise.sigma_min, self.prior_deviation, self.iterations)

    def finish(self, x: Array, own: Array) -> Array:
        """The sample with the known parts in place."""
        return jnp.where(self.mask, own, x)


class _Labelled(eqx.Module):
    score: Callable
    label: Array
    guidance: Array | None

    def __call__(self, x: Array, sigma: Array) -> Array:
        told = self.score(x, sigma, self.label)
        if self.guidance is None:
            return told
        plain = self.score(x, sigma, jnp.asarray(NOBODY, jnp.int32))
        return plain + self.guidance.astype(x.dtype) * (told - plain)


class _Keep(eqx.Module):
    mask: Array

    def __call__(self, x: Array) -> Array:
        return jnp.where(self.mask, x, 0)


class _Informed(eqx.Module):
    """A flow whose denoised mean knows the measurements."""

    flow: Flow
    operator: Callable
    data: Array
    deviation: Array
    prior_deviation: Array | None
    iterations: int = eqx.field(static=True)

    @property
    def noise(self) -> Any:
        return self.flow.noise

    def denoise(self, y: Array, k: Array) -> Array:
        """The mean of the data given y and the measurements."""
        mean, back = jax.vjp(lambda y: self.flow.denoise(y, k), y)
        transpose = jax.linear_transpose(self.operator, y)

        def spread(v: Array) -> Array:
            """C A^T v / k^2; the covariance is symmetric, so that a transposed product will do."""
            (lifted,) = transpose(v)
            if self.prior_deviation is None:
                return back(lifted)[0]
            s = self.prior_deviation.astype(y.dtype)
            return s**2 / (k**2 + s**2) * lifted

        ridge = (self.deviation.astype(y.dtype) / k) ** 2
        misfit = self.data - self.operator(mean)

        def product(v: Array) -> Array:
            v = v.reshape(misfit.shape)
            return jnp.ravel(self.operator(spread(v)) + ridge * v)

        # A C A^T (A C A^T + deviation^2)^-1 shrinks, so the residual bounds the error of the mean, seen by A.
        expected = jax.lax.stop_gradient(math.sqrt(max(misfit.size, 1)) * self.deviation.astype(y.dtype))
        small = math.sqrt(float(jnp.finfo(y.dtype).eps))

        def solve(product: Callable, b: Array) -> Array:
            weights, stats = Cg(self.iterations).solve(product, b, None, lambda v: v, small * expected)
            return jnp.where(stats.residual <= 0.1 * expected, weights, jnp.nan)

        weights = jax.lax.custom_linear_solve(product, jnp.ravel(misfit), solve, symmetric=True)
        return mean + spread(weights.reshape(misfit.shape))

    def pull(self, y: Array, k: Array) -> Array:
        """The score given the measurements, by Tweedie's formula."""
        return (self.denoise(y, k) - y) / k**2


def _check_linear(operator: Callable, shape: tuple[int, ...], dtype: Any) -> None:
    """ValueError for an operator that is not linear, or that adds something to what is linear."""
    at_zero = _at_zero(Watched(operator, fingerprint(operator)), shape, dtype)
    if is_known(at_zero) and not float(at_zero) == 0:
        raise ValueError(
            f"`operator` must be linear, so that it takes 0 to 0; it takes 0 to numbers up to {float(at_zero):.3g}. "
            "Subtract what it adds from the operator and from `data`."
        )


@eqx.filter_jit
def _at_zero(operator: Callable, shape: tuple[int, ...], dtype: Any) -> Array:
    """Largest number that the operator makes of zero; ValueError where it cannot be transposed."""
    value = operator(jnp.zeros(shape, dtype))
    try:
        jax.linear_transpose(operator, jnp.zeros(shape, dtype))(jnp.zeros_like(value))
    except (NotImplementedError, AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            "`operator` must be linear in the sample, made of operations that JAX can transpose; a product of the "
            f"sample with itself or a function such as exp is not. JAX says: {str(error).splitlines()[0]}"
        ) from error
    return jnp.max(jnp.abs(value))


def _positive(value: Any, name: str) -> Array:
    value = as_field(value, name, ())
    if is_known(value) and not float(value) > 0:
        raise ValueError(f"`{name}` must be positive, got {float(value):g}.")
    return value
