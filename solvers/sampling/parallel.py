"""Many chains at once: one kernel mapped over them, keys by chain and step, shards over devices."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

# No step has this number: what `init` draws is drawn by nobody else.
START = 0xFFFFFFFF


class Ensemble(eqx.Module):
    """A kernel, and where its chains stand.

    Step n of chain c uses the key fold_in(fold_in(key, c), n), whatever the number of chains, devices or steps is.
    """

    kernel: Any
    own: Array  # fold_in(key, c) of each chain
    mesh: Any = eqx.field(static=True)
    with_key: bool = eqx.field(static=True)  # whether `init` takes a key
    seen: Any = eqx.field(static=True)  # what the kernel captures: every program of the chains is compiled for it

    def start(self, positions: Any) -> Any:
        """States of all chains."""

        def one(kernel: Any, key: Array, position: Any) -> Any:
            return kernel.init(position, key) if self.with_key else kernel.init(position)

        return self.mapped(one, self.keys(START), positions)

    def at_start(self, positions: Any) -> Any:
        """What the kernel knows at the start and does not keep in its state, () for nothing."""
        if not hasattr(self.kernel, "at_start"):
            return ()
        return self.mapped(lambda kernel, key, x: kernel.at_start(x, key), self.keys(START), positions)

    def step(self, n: Any, states: Any) -> tuple[Any, Any]:
        """New states and reports of all chains."""
        return self.mapped(lambda kernel, key, state: kernel.step(key, state), self.keys(n), states)

    def splits(self) -> bool:
        """Whether the random numbers of a step can be drawn before it, as of all kernels of this package."""
        kernel = self.kernel
        return all(hasattr(kernel, name) for name in ("target_acceptance", "noise", "move"))

    def draw(self, steps: Array, states: Any) -> Any:
        """The random numbers of several steps, (steps, chains, ...); of the states only the shapes matter."""

        def one(kernel: Any, keys: Array, state: Any) -> Any:
            return jax.vmap(lambda key: kernel.noise(key, state))(keys)

        keys = jax.vmap(self.keys, out_axes=1)(steps)
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), self.mapped(one, keys, states))

    def move(self, states: Any, drawn: Any) -> tuple[Any, Any]:
        """New states and reports of all chains, with random numbers drawn before."""
        return self.mapped(lambda kernel, noise, state: kernel.move(state, noise), drawn, states)

    def keys(self, n: Any) -> Array:
        number = jnp.asarray(n, jnp.uint32)
        return jax.vmap(lambda own: jax.random.fold_in(own, number))(self.own)

    def mapped(self, one: Any, keys: Any, of_chains: Any) -> Any:
        """`one(kernel, key, x)` of each chain, each device its own chains."""
        arrays, still = eqx.partition(self.kernel, eqx.is_array)

        def local(arrays: Any, keys: Any, of_chains: Any) -> Any:
            kernel = eqx.combine(arrays, still)
            return jax.vmap(lambda key, x: one(kernel, key, x))(keys, of_chains)

        if self.mesh is None:
            return local(arrays, keys, of_chains)
        # No chain needs another one: each device works alone, and nothing is sent.
        mine, everybody = PartitionSpec("chain"), PartitionSpec()
        shared = jax.shard_map(local, mesh=self.mesh, in_specs=(everybody, mine, mine), out_specs=mine, check_vma=False)
        return shared(arrays, keys, of_chains)


def spread(positions: Any, chains: int) -> tuple[Any, Any]:
    """A mesh for the chains and the positions on it; (None, positions) where there is one device."""
    devices = jax.devices()
    # Chains per device must be equal.
    number = max(d for d in range(1, len(devices) + 1) if chains % d == 0)
    if number == 1 or jax.process_count() > 1:
        return None, positions
    mesh = Mesh(np.array(devices[:number]), ("chain",))
    return mesh, jax.device_put(positions, NamedSharding(mesh, PartitionSpec("chain")))


def report(info: Any, name: str, *others: str) -> Any:
    """A field of a kernel's report under any of its names, or None."""
    for candidate in (name, *others):
        if (value := getattr(info, candidate, None)) is not None:
            return value
    return None


def acceptance_of(info: Any) -> Any:
    return report(info, "acceptance", "acceptance_rate")


def finite_chains(tree: Any, chains: int) -> Array:
    """Per chain: whether all its floating numbers are finite."""
    ok = jnp.ones(chains, bool)
    for x in jax.tree.leaves(tree):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            ok &= jnp.isfinite(x).reshape(chains, -1).all(axis=1)
    return ok


class Tally(eqx.Module):
    """Counts per chain, over all steps.

    `acceptance` is the mean, kept as one: a sum would lose digits in single precision. NaN if the kernel tells none.
    Gradients are counted in two words of 32 bits, since a step may take many.
    """

    acceptance: Array
    divergent: Array
    nonfinite: Array
    gradients: Array
    overflows: Array  # of the count of gradients
    steps: Array

    @staticmethod
    def empty(chains: int) -> "Tally":
        zero = jnp.zeros(chains, jnp.int32)
        words = jnp.zeros(chains, jnp.uint32)
        mean = jnp.zeros(chains, jnp.result_type(float))
        return Tally(mean, zero, zero, words, words, jnp.zeros((), jnp.int32))

    def add(self, info: Any) -> "Tally":
        """With one more step."""
        steps = self.steps + 1
        acceptance = acceptance_of(info)
        change = jnp.nan if acceptance is None else (acceptance.astype(self.acceptance.dtype) - self.acceptance) / steps

        def counted(total: Array, value: Any) -> Array:
            return total if value is None else total + value.astype(total.dtype)

        gradients = counted(self.gradients, report(info, "gradients", "num_integration_steps"))
        return Tally(
            (self.acceptance + change).astype(self.acceptance.dtype),
            counted(self.divergent, report(info, "divergent", "is_divergent")),
            counted(self.nonfinite, report(info, "nonfinite")),
            gradients,
            # Unsigned numbers begin again at 0.
            self.overflows + (gradients < self.gradients),
            lax.convert_element_type(steps, jnp.int32),
        )

    def all_gradients(self) -> np.ndarray:
        """Number of gradients of each chain; on the host."""
        return (np.asarray(self.overflows, np.int64) << 32) + np.asarray(self.gradients, np.int64)
