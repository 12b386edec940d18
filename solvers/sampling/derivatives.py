"""Derivatives of what a sampler gives: pathwise through a chain, or from stationary draws."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.loop import Simulation, simulate
from .density import as_position
from .parallel import START


def pathwise(
    kernel: Any,
    key: Array,
    positions: Any,
    *,
    steps: int,
    observe: Any = None,
    every: int = 1,
    adjoint: Any = "auto",
    memory: str | float | int | None = None,
) -> Simulation:
    """Run chains so that what they observe can be differentiated along their paths.

        x_(n+1) = move(x_n, xi_n; theta),        d x_(n+1) / d theta = d move / d x  d x_n / d theta + d move / d theta

    with the same random numbers xi_n for every theta: step n of chain c draws them from fold_in(fold_in(key, c), n), so
    that none is stored. Everything in the kernel that is an array is a theta: step size, metric, parameters of the
    density; so is the start. Reverse mode through `adjoint` needs O(sqrt(steps)) memory or less; forward mode
    works too.

    The derivative of an average over a long chain is that of the stationary expectation of the discrete chain, if two
    chains with the same noise come together (log-concave targets; elsewhere paths diverge and so do derivatives: then
    use `sensitivity`). A Metropolis correction moves the path by jumps that no derivative sees: use kernels without
    one (`Ula`, `LeimkuhlerMatthews`, `Baoab`).

    Args:
        kernel: any kernel without Metropolis correction.
        key: random key.
        positions: starts of the chains, a pytree with a leading axis of the chains.
        steps: number of steps, at least 1.
        observe: function of a position whose values are stacked, by default the position.
        every: observe after every `every` steps.
        adjoint: how reverse mode is done, as for `simulate`.
        memory: bytes for the reverse sweep of one chain, as for `simulate`.

    Returns:
        `Simulation`: `final`, the last positions, and `observed`, each with a leading axis of the chains; status.

    Raises:
        TypeError: if the kernel has a Metropolis correction, or a foreign one reports that it accepts and rejects.
        ValueError: as `simulate` does.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> def spread(width):
        ...     kernel = sv.LeimkuhlerMatthews(lambda x: -0.5 * (x / width) ** 2, step=0.5)
        ...     run = sv.pathwise(kernel, jax.random.key(0), jnp.zeros(400), steps=60)
        ...     return jnp.mean(run.observed[:, 20:] ** 2)              # width^2, so the derivative is 2 width
        >>> bool(abs(jax.grad(spread)(1.0) - 2.0) < 0.15)
        True

    Reference:
        P. Glasserman, Monte Carlo Methods in Financial Engineering (2003), section 7.2.
    """
    positions = as_position(positions)
    if _rejects(kernel, positions, key):
        raise TypeError(
            f"{type(kernel).__name__} accepts and rejects, which no pathwise derivative sees. Use a kernel without "
            "Metropolis correction, such as LeimkuhlerMatthews or Baoab, or `sensitivity` of stationary draws."
        )
    see = (lambda state: state[0].position) if observe is None else (lambda state: observe(state[0].position))
    chains = jnp.arange(jax.tree.leaves(positions)[0].shape[0])

    def one(kernel: Any, position: Any, chain: Array) -> Simulation:
        own = jax.random.fold_in(key, chain)
        start = (kernel.init(position, jax.random.fold_in(own, START)), jnp.asarray(0, jnp.int32))
        dtype = jax.tree.leaves(position)[0].dtype
        run = simulate(
            _Chain(kernel, own),
            start,
            steps=steps,
            dt=jnp.ones((), dtype),
            observe=see,
            every=every,
            adjoint=adjoint,
            memory=memory,
        )
        return eqx.tree_at(lambda r: r.final, run, run.final[0].position)

    return eqx.filter_vmap(one, in_axes=(None, 0, 0))(kernel, positions, chains)


def _rejects(kernel: Any, positions: Any, key: Array) -> bool:
    """Whether a kernel has a Metropolis correction: ours say so, foreign ones report an acceptance."""
    if hasattr(kernel, "target_acceptance"):
        return kernel.target_acceptance is not None

    def once(positions: Any) -> Any:
        position = jax.tree.map(lambda x: x[0], positions)
        return kernel.step(key, kernel.init(position, key))[1]

    info = eqx.filter_eval_shape(once, positions)
    return any(getattr(info, name, None) is not None for name in ("acceptance_rate", "is_accepted"))


class _Chain(eqx.Module):
    """A kernel as an equation: a state with a counter, noise from the counter."""

    kernel: Any
    key: Array

    def step(self, state: Any, inputs: Any, dt: Array) -> Any:
        inner, n = state
        inner, _ = self.kernel.step(jax.random.fold_in(self.key, n), inner)
        return inner, n + 1


class Sensitivity(eqx.Module):
    """What `sensitivity` returns.

    Attributes:
        value: d E[f] / d theta, for each leaf of f a pytree like theta, of shape (*f, *theta).
        error: Monte Carlo standard error of it, of the same structure.
        mean: E[f].
    """

    value: Any
    error: Any
    mean: Any


def sensitivity(
    function: Callable[[Any], Any],
    logdensity: Callable[[Any, Any], Any],
    draws: Any,
    theta: Any,
    *,
    batches: int = 20,
) -> Sensitivity:
    """Derivative of a stationary expectation with respect to the parameters of the density, from draws alone.

        d E[f] / d theta = Cov(f(x), d log pi(x; theta) / d theta),        x ~ pi(.; theta)

    The normalisation of pi drops out. No derivative of f or of the chain is taken, so that it holds for every sampler,
    `Nuts` and `ParallelTempering` too. The standard error is that of means over batches of consecutive draws, which
    sees the correlation of a chain if a batch is longer than that; it grows with the number of unknowns that theta
    touches. If f itself depends on theta, add E[d f / d theta].

    Args:
        function: f, from one position to a pytree of arrays.
        logdensity: function of (position, theta), up to a constant that may depend on theta.
        draws: positions with leading axes (chains, draws).
        theta: parameters, a pytree of floating arrays.
        batches: batches per chain for the standard error, at least 2.

    Returns:
        `Sensitivity(value, error, mean)`.

    Raises:
        ValueError: if there are too few draws for the batches.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> draws = 2.0 * jax.random.normal(jax.random.key(0), (4, 5000))
        >>> told = sensitivity(lambda x: x**2, lambda x, s: -0.5 * (x / s) ** 2, draws, 2.0)
        >>> bool(abs(told.value - 4.0) < 4 * told.error), bool(told.error < 0.2)      # d s^2 / d s = 2 s
        (True, True)

    Reference:
        P. W. Glynn, Commun. ACM 33 (1990) 75 (likelihood ratios); S. Asmussen, P. W. Glynn, Stochastic Simulation
        (2007), section VII.3, and IV.3 (batch means).
    """
    draws = as_position(draws)
    shapes = {jnp.shape(x)[:2] for x in jax.tree.leaves(draws)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"`draws` needs two leading axes, (chains, draws), the same in every leaf; got {sorted(shapes)}."
        )
    length = next(iter(shapes))[1]
    if batches < 2 or length < 2 * batches:
        raise ValueError(
            f"`batches` must be at least 2 and at most half of the {length} draws of a chain, got {batches}."
        )
    theta = jax.tree.map(lambda t: jnp.asarray(t, jnp.result_type(float, t)), theta)
    return _sensitivity(_Pair(function, logdensity), draws, theta, batches)


class _Pair(eqx.Module):
    function: Callable
    logdensity: Callable


@eqx.filter_jit
def _sensitivity(pair: _Pair, draws: Any, theta: Any, batches: int) -> Sensitivity:
    def both(x: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.asarray, pair.function(x)), jax.grad(lambda t: pair.logdensity(x, t))(theta)

    values, scores = jax.vmap(jax.vmap(both))(draws)
    mean = jax.tree.map(lambda f: jnp.mean(f, axis=(0, 1)), values)
    away = jax.tree.map(lambda f, m: f - m, values, mean)
    scores = jax.tree.map(lambda s: s - jnp.mean(s, axis=(0, 1)), scores)
    chains, length = jax.tree.leaves(draws)[0].shape[:2]
    size = length // batches

    def parts(f: Array, s: Array) -> tuple[Array, Array]:
        """Covariance, and its standard error from means over batches of the products."""
        whole = jnp.einsum(
            "cnf,cns->fs", f.reshape(chains, length, -1), s.reshape(chains, length, -1), precision="highest"
        )
        cut = (chains * batches, size, -1)
        f_cut, s_cut = f[:, : batches * size].reshape(cut), s[:, : batches * size].reshape(cut)
        means = jnp.einsum("bnf,bns->bfs", f_cut, s_cut, precision="highest") / size
        count = chains * batches
        error = jnp.sqrt(jnp.var(means, axis=0, ddof=1) / count)
        shape = (*f.shape[2:], *s.shape[2:])
        value = whole / (chains * length - 1)
        return value.reshape(shape), error.reshape(shape)

    def against(pick: int) -> Any:
        return jax.tree.map(lambda f: jax.tree.map(lambda s: parts(f, s)[pick], scores), away)

    return Sensitivity(against(0), against(1), mean)
