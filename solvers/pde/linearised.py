"""Linearised modelling: Born scattering and the Gauss-Newton operator of any recording function."""

from collections.abc import Callable
from typing import Any

import jax


def born(record: Callable, model: Any, perturbation: Any) -> tuple[Any, Any]:
    """Data of a background model, and the first-order change of the data by a perturbation of it.

    The scattered data are J dm, with J the derivative of `record` at the model: exactly the linearisation of the
    discrete solver (single scattering, the Born approximation), at about twice the cost of `record`.

    Args:
        record: model -> data, for instance a function that builds a `Wave`, simulates, and returns the receivers.
        model: background, for instance the speed, m/s.
        perturbation: dm, of the structure and shape of the model.

    Returns:
        (data, scattered data).

    Example:
        >>> import jax.numpy as jnp
        >>> born(lambda m: m**2, jnp.array([3.0]), jnp.array([0.1]))[1].round(3).tolist()
        [0.6]

    Reference:
        Tarantola, Geophysics 49 (1984), 1259.
    """
    return jax.jvp(record, (model,), (perturbation,))


def gauss_newton(record: Callable, model: Any, perturbation: Any, weight: Callable | None = None) -> Any:
    """Gauss-Newton operator J^T W J applied to a perturbation: the Hessian of a data misfit without curvature of J.

    Symmetric and positive, so that conjugate gradients can solve with it. One Born run and one adjoint run.

    Args:
        record: model -> data.
        model: where J is taken.
        perturbation: of the structure of the model.
        weight: data -> data, the symmetric weight W; None for the identity.

    Returns:
        J^T W J dm, of the structure of the model.

    Example:
        >>> import jax.numpy as jnp
        >>> gauss_newton(lambda m: m**2, jnp.array([3.0]), jnp.array([1.0])).tolist()
        [36.0]

    Reference:
        Pratt, Shin and Hicks, Geophysical Journal International 133 (1998), 341, eq. 14.
    """
    _, scattered = jax.jvp(record, (model,), (perturbation,))
    _, pull = jax.vjp(record, model)
    return pull(scattered if weight is None else weight(scattered))[0]
