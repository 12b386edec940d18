"""Counts how often a program evaluates a function and applies its Jacobian, whatever library runs it.

The counter sits inside the function as callbacks to the host, so that every JAX code is counted by the same ruler: one
for a value, one for a product with the Jacobian, one for a product with its transpose, each per sample of a batch.
Counted programs are never timed.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax


class Ruler:
    """Counts of `values`, `products` and `transposed` products since the last `read`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def read(self) -> dict[str, int]:
        """The counts so far, set to zero."""
        jax.effects_barrier()
        found = {name: self.counts[name] for name in ("values", "products", "transposed")}
        self.counts.clear()
        return found

    def mark(self, name: str, x: Any) -> None:
        """Count one when the running program has made x."""

        def note(_: Any) -> None:
            self.counts[name] += 1

        jax.debug.callback(note, jax.tree.leaves(x)[0].ravel()[0])

    def counted(self, function: Callable[..., Any], transposed: bool = True) -> Callable[..., Any]:
        """The same function of a first argument and parameters, counted. First derivatives only.

        Without `transposed` it may be batched (also by a code that writes out the Jacobian), and products with the
        transpose are not counted.
        """

        def ahead(_: Any, tangent: Any) -> Any:
            self.mark("products", tangent)
            return tangent

        def back(_: Any, cotangent: Any) -> Any:
            self.mark("transposed", cotangent)
            return cotangent

        @jax.custom_jvp
        def value(x: Any, *args: Any) -> Any:
            self.mark("values", x)
            return function(x, *args)

        @value.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            out, tangent = jax.jvp(function, primals, tangents)
            self.mark("values", primals[0])
            if transposed:
                return out, jax.custom_derivatives.linear_call(ahead, back, (), tangent)
            return out, ahead((), tangent)

        return value
