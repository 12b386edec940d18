"""Langevin dynamics with minibatch gradients: `Minibatch`, `Sgld`, `PreconditionedSgld`."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .density import Point, as_kernel_fields, as_position, as_step, check_start
from .kernel import Info, all_finite, choose, unadjusted
from .metric import white_noise
from .vectors import add, scale, subtract


class Minibatch(eqx.Module):
    """A posterior as a sum over data, and an unbiased estimate of its score from a few of them.

        log pi(x) = logprior(x) + sum_i loglikelihood(x, d_i)
        score(x, batch) = grad logprior(x) + N / n sum_(i in batch) grad loglikelihood(x, d_i)

    The batch is drawn with replacement, n of N. With an anchor x0 (a point near the mode, `anchored`) the estimate is
    taken of the difference from the score there, a control variate: its variance falls with the distance from x0.
    Called as a function of the position it is log pi itself.

    Args:
        logprior: function of the position that returns a scalar.
        loglikelihood: function of the position and one datum that returns a scalar.
        data: pytree of arrays with a leading axis of length N.
        size: n, data per batch.

    Raises:
        ValueError: if the leading axes of the data differ or `size` is not between 1 and N.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> data = jnp.linspace(-1.0, 1.0, 50)
        >>> posterior = Minibatch(lambda x: -0.5 * x**2, lambda x, d: -0.5 * (d - x) ** 2, data, size=50)
        >>> whole = posterior.score(jnp.asarray(0.3), jnp.arange(50))
        >>> round(float(whole), 4), round(float(jax.grad(posterior)(0.3)), 4)
        (-15.3, -15.3)

    Reference:
        M. Welling, Y. W. Teh, ICML (2011); J. Baker, P. Fearnhead, E. B. Fox, C. Nemeth, Stat. Comput. 29 (2019) 599
        (control variates).
    """

    logprior: Callable
    loglikelihood: Callable
    data: Any
    size: int = eqx.field(static=True)
    anchor: tuple[Any, Any] | None = None

    def __init__(
        self,
        logprior: Callable,
        loglikelihood: Callable,
        data: Any,
        size: int,
        anchor: tuple[Any, Any] | None = None,
    ):
        self.logprior, self.loglikelihood = logprior, loglikelihood
        self.data = jax.tree.map(jnp.asarray, data)
        self.size, self.anchor = size, anchor
        counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(self.data)}
        if len(counts) != 1 or () in counts:
            raise ValueError(f"All of `data` must have one leading axis, of the data; got {sorted(counts)}.")
        if not 1 <= size <= self.count:
            raise ValueError(f"`size` must lie between 1 and the {self.count} data, got {size}.")

    @property
    def count(self) -> int:
        """N."""
        return jax.tree.leaves(self.data)[0].shape[0]

    def __call__(self, position: Any) -> Array:
        return self.logprior(position) + jnp.sum(jax.vmap(lambda d: self.loglikelihood(position, d))(self.data))

    def draw(self, key: Array) -> Array:
        """Indices of a batch."""
        return jax.random.randint(key, (self.size,), 0, self.count)

    def score(self, position: Any, batch: Array) -> Any:
        """Estimate of grad log pi from the data with these indices."""
        factor = self.count / batch.shape[0]

        def some(x: Any) -> Array:
            chosen = jax.tree.map(lambda d: d[batch], self.data)
            return factor * jnp.sum(jax.vmap(lambda d: self.loglikelihood(x, d))(chosen))

        estimate = jax.grad(some)(position)
        if self.anchor is not None:
            place, whole = self.anchor
            estimate = add(subtract(estimate, jax.grad(some)(place)), whole)
        return add(jax.grad(self.logprior)(position), estimate)

    def anchored(self, position: Any) -> "Minibatch":
        """The same with a control variate at a position, for which the whole data are read once."""
        position = as_position(position)
        whole = jax.grad(lambda x: jnp.sum(jax.vmap(lambda d: self.loglikelihood(x, d))(self.data)))(position)
        return Minibatch(self.logprior, self.loglikelihood, self.data, self.size, (position, whole))


class StochasticState(eqx.Module):
    """State of `Sgld` and `PreconditionedSgld`: position, number of steps, running mean of squared scores or None."""

    position: Any
    count: Array
    square: Any = None


class Sgld(eqx.Module):
    """Stochastic gradient Langevin dynamics: `Ula` with a score estimated from a minibatch.

        x' = x + h A g + sqrt(2 h) L xi,        E[g] = grad log pi(x)

    The noise of the estimate adds to that of the step: the stationary covariance is too wide by O(h) times the
    variance of the estimate, beside the bias of `Ula`. Let h fall (`schedule`), use larger batches, or anchor the
    estimate. One score estimate per step, whatever the number of data.

    Args:
        estimate: the target, such as `Minibatch`: `draw(key)` gives a batch, `score(position, batch)` an estimate.
        step: h, positive; differentiable.
        metric: A, an operator such as `DiagonalMetric`; by default the identity.
        schedule: function of the number of steps done that multiplies h; by default 1.

    Raises:
        ValueError: if the step is not positive.
        TypeError: if the estimate has no `draw` and `score`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> data = jnp.linspace(-1.0, 1.0, 50)
        >>> posterior = Minibatch(lambda x: -0.5 * x**2, lambda x, d: -0.5 * (d - x) ** 2, data, size=5)
        >>> kernel = Sgld(posterior, step=1e-3, schedule=lambda n: (1 + n / 100) ** -0.5)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.asarray(0.0), jax.random.key(0)))
        >>> int(state.count)
        1

    Reference:
        M. Welling, Y. W. Teh, ICML (2011), equation (4), whose step is 2 h.
    """

    estimate: Any
    step_size: Array
    metric: Any
    schedule: Callable | None
    target_acceptance: ClassVar[None] = None

    def __init__(self, estimate: Any, *, step: Any, metric: Any = None, schedule: Callable | None = None):
        self.estimate = _checked(estimate)
        _, self.step_size, self.metric, _ = as_kernel_fields(estimate.score, step, metric, None, needs_density=False)
        self.schedule = schedule

    def init(self, position: Any, key: Array) -> StochasticState:
        """State of a chain that starts at the position."""
        return StochasticState(self.at_start(position, key).position, jnp.asarray(0, jnp.int32))

    def at_start(self, position: Any, key: Array) -> Point:
        """A first estimate of the score at the start, which the state does not keep."""
        position = as_position(position)
        point = Point(position, None, self.estimate.score(position, self.estimate.draw(key)))
        check_start(point)
        return point

    def noise(self, key: Array, state: StochasticState) -> dict:
        """The batch and xi, the random numbers of one step."""
        batch, normal = jax.random.split(key)
        return {"batch": self.estimate.draw(batch), "normal": white_noise(self.metric, normal, state.position)}

    def move(self, state: StochasticState, noise: dict) -> tuple[StochasticState, Info]:
        """One step with the given random numbers."""
        h = self.step_size if self.schedule is None else self.step_size * self.schedule(state.count)
        pull = self.metric.sqrt_transpose(self.estimate.score(state.position, noise["batch"]))
        white = add(scale(h, pull), scale(jnp.sqrt(2 * h), noise["normal"]))
        position = add(state.position, self.metric.sqrt(white))
        return _arrive(state, position, None)

    def step(self, key: Array, state: StochasticState) -> tuple[StochasticState, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


class PreconditionedSgld(eqx.Module):
    """`Sgld` with a diagonal metric that follows the size of the gradients, as RMSprop does.

        V' = memory V + (1 - memory) g^2,        G = 1 / (floor + V'^(1/2))
        x' = x + h G g + sqrt(2 h G) xi

    The term with the derivative of G is left out, as its authors do: a bias that is small while `memory` is close to
    1. g is the score of the whole posterior, so that h is the length of a step in units in which all components of the
    score are about one.

    Args:
        estimate: the target, such as `Minibatch`: `draw(key)` gives a batch, `score(position, batch)` an estimate.
        step: h, positive; differentiable.
        memory: weight of the past in V, between 0 and 1.
        floor: smallest size of a score, positive, which bounds G.

    Raises:
        ValueError: if step or floor is not positive or the memory not between 0 and 1.
        TypeError: if the estimate has no `draw` and `score`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> data = jnp.linspace(-1.0, 1.0, 50)
        >>> posterior = Minibatch(lambda x: -0.5 * x**2, lambda x, d: -0.5 * (d - x) ** 2, data, size=5)
        >>> kernel = PreconditionedSgld(posterior, step=1e-3)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.asarray(0.0), jax.random.key(0)))
        >>> bool(state.square > 0)
        True

    Reference:
        C. Li, C. Chen, D. Carlson, L. Carin, AAAI (2016), algorithm 1, without its equation for Gamma.
    """

    estimate: Any
    step_size: Array
    memory: Array
    floor: Array
    target_acceptance: ClassVar[None] = None

    def __init__(self, estimate: Any, *, step: Any, memory: Any = 0.99, floor: Any = 1e-5):
        self.estimate = _checked(estimate)
        self.step_size, self.memory, self.floor = as_step(step), as_step(memory, "memory"), as_step(floor, "floor")
        as_step(1 - self.memory, "1 - memory")

    def init(self, position: Any, key: Array) -> StochasticState:
        """State of a chain that starts at the position; V starts from a first estimate."""
        position = as_position(position)
        score = self.estimate.score(position, self.estimate.draw(key))
        check_start(Point(position, None, score))
        return StochasticState(position, jnp.asarray(0, jnp.int32), jax.tree.map(jnp.square, score))

    def noise(self, key: Array, state: StochasticState) -> dict:
        """The batch and xi, the random numbers of one step."""
        batch, normal = jax.random.split(key)
        numbers = jax.random.split(normal, len(jax.tree.leaves(state.position)))
        leaves, tree = jax.tree.flatten(state.position)
        xi = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(numbers, leaves, strict=True)]
        return {"batch": self.estimate.draw(batch), "normal": tree.unflatten(xi)}

    def move(self, state: StochasticState, noise: dict) -> tuple[StochasticState, Info]:
        """One step with the given random numbers."""
        score = self.estimate.score(state.position, noise["batch"])

        def remember(v: Array, g: Array) -> Array:
            memory = self.memory.astype(v.dtype)
            return memory * v + (1 - memory) * g * g

        def go(x: Array, v: Array, g: Array, xi: Array) -> Array:
            h = self.step_size.astype(x.dtype) / (self.floor.astype(x.dtype) + jnp.sqrt(v))
            return x + h * g + jnp.sqrt(2 * h) * xi

        square = jax.tree.map(remember, state.square, score)
        position = jax.tree.map(go, state.position, square, score, noise["normal"])
        return _arrive(state, position, square)

    def step(self, key: Array, state: StochasticState) -> tuple[StochasticState, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


def _checked(estimate: Any) -> Any:
    if not (hasattr(estimate, "draw") and hasattr(estimate, "score")):
        raise TypeError(
            "`estimate` needs draw(key) and score(position, batch), as Minibatch has them; "
            f"{type(estimate).__name__} has not."
        )
    return estimate


def _arrive(state: StochasticState, position: Any, square: Any) -> tuple[StochasticState, Info]:
    """The new state, unless it is not finite; the count goes on in any case."""
    usable = all_finite((position, square))
    place, square = choose(usable, (position, square), (state.position, state.square))
    return StochasticState(place, state.count + 1, square), unadjusted(Point(place), usable, gradients=1)
