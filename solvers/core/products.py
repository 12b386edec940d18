"""Products with derivatives of a function, in the form that spectra, traces and Krylov methods take."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


class HessianProduct(eqx.Module):
    """The Hessian of a scalar function as an operator: (v, x, *args) -> H(x, *args) v.

    Forward over reverse mode: about four evaluations of the function for each product, and no matrix.

    Args:
        function: scalar function (x, *args), with x an array or a pytree of floating arrays.

    Example:
        >>> import jax.numpy as jnp
        >>> from solvers.core.spectra import eigsh
        >>> bowl = lambda x, depth: depth * (3 * x[0] ** 2 + x[0] * x[1] + 3 * x[1] ** 2)
        >>> x = jnp.array([0.2, 0.1])
        >>> eigsh(HessianProduct(bowl), x, x, 0.5, k=2).values
        Array([3.5, 2.5], dtype=float64)
    """

    function: Callable

    def __call__(self, v: Any, x: Any, *args: Any) -> Any:
        gradient = jax.grad(lambda x: self.function(x, *args))
        return jax.jvp(gradient, (x,), (v,))[1]


class JacobianProduct(eqx.Module):
    """The Jacobian of a function as an operator: (v, x, *args) -> J(x, *args) v.

    Its transpose, which `svds` takes by itself, is reverse mode.

    Args:
        function: function (x, *args) of an array or pytree of floating arrays that returns one.

    Example:
        >>> import jax.numpy as jnp
        >>> from solvers.core.spectra import svds
        >>> polar = lambda x: x[0] * jnp.array([jnp.cos(x[1]), jnp.sin(x[1])])
        >>> x = jnp.array([3.0, 0.7])
        >>> svds(JacobianProduct(polar), x, x, k=2).values
        Array([3., 1.], dtype=float64)
    """

    function: Callable

    def __call__(self, v: Any, x: Any, *args: Any) -> Any:
        return jax.jvp(lambda x: self.function(x, *args), (x,), (v,))[1]
