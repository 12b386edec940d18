"""Krylov methods that keep a few vectors: conjugate gradients, MINRES, BiCGStab."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .krylov import LinearStats, Map, check_counts, in_cycles
from .packing import dot, norm2


class Cg(eqx.Module):
    """Conjugate gradients, for symmetric positive definite matrices (and preconditioners).

    Minimises the energy norm of the error; one product per iteration, four vectors. A direction of negative or zero
    curvature shows that the matrix is not positive definite and ends the solve: the status is then STAGNATED.

    Args:
        max_steps: largest number of products.

    Raises:
        ValueError: for a number below 1.

    Example:
        >>> Cg()
        Cg()

    Reference:
        M. R. Hestenes, E. Stiefel, J. Res. Nat. Bur. Standards 49 (1952) 409; Saad (2003), algorithm 9.1.
    """

    max_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)

    def solve(
        self, matvec: Map, b: Array, x: Array | None, precondition: Map, tolerance: Array
    ) -> tuple[Array, LinearStats]:
        """Solve A x = b from vectors; returns (x, LinearStats)."""

        def cycle(r: Array, beta: Array, most: Array) -> tuple:
            z = precondition(r)
            # (x, r, z, p, r.z, steps, done)
            state = (jnp.zeros_like(r), r, z, z, dot(r, z), jnp.zeros((), jnp.int32), jnp.asarray(False))

            def step(s: tuple) -> tuple:
                x, r, z, p, rz, k, _ = s
                q = matvec(p)
                curvature = dot(p, q)
                # Signs, not sizes: nothing here has a scale to compare with.
                good = (curvature > 0) & (rz > 0)
                alpha = jnp.where(good, rz / jnp.where(good, curvature, 1), 0)
                x, r = x + alpha * p, r - alpha * q
                z = precondition(r)
                new = dot(r, z)
                p = z + new / jnp.where(good, rz, 1) * p
                return x, r, z, p, new, k + 1, ~good | (norm2(r) <= 0.999 * tolerance)

            x, *_, k, _ = lax.while_loop(lambda s: ~s[-1] & ((s[-2] == 0) | (s[-2] + 1 < most)), step, state)
            return x, k, k

        return in_cycles(cycle, matvec, b, x, tolerance, self.max_steps)


class Minres(eqx.Module):
    """Minimal residuals for symmetric matrices, definite or not; the preconditioner must be positive definite.

    One product per iteration, eight vectors.

    Args:
        max_steps: largest number of products.

    Raises:
        ValueError: for a number below 1.

    Example:
        >>> Minres(max_steps=50)
        Minres(max_steps=50)

    Reference:
        C. C. Paige, M. A. Saunders, SIAM J. Numer. Anal. 12 (1975) 617; H. Elman, D. Silvester, A. Wathen, Finite
        Elements and Fast Iterative Solvers (2014), algorithm 4.1.
    """

    max_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)

    def solve(
        self, matvec: Map, b: Array, x: Array | None, precondition: Map, tolerance: Array
    ) -> tuple[Array, LinearStats]:
        """Solve A x = b from vectors; returns (x, LinearStats)."""

        def cycle(r: Array, beta: Array, most: Array) -> tuple:
            start = _lanczos_start(r, precondition)
            more = lax.while_loop(
                lambda s: ~s.done & ((s.k == 0) | (s.k + 1 < most)),
                lambda s: _minres_step(s, matvec, precondition, tolerance),
                start,
            )
            return more.x, more.k, more.k

        return in_cycles(cycle, matvec, b, x, tolerance, self.max_steps)


class _Minres(NamedTuple):
    x: Array
    r: Array
    v: Array
    v_old: Array
    z: Array
    w: Array
    w_old: Array
    gamma: Array
    gamma_old: Array
    eta: Array
    c: Array
    c_old: Array
    s: Array
    s_old: Array
    k: Array
    done: Array


def _lanczos_start(r: Array, precondition: Map) -> _Minres:
    zeros, zero, one = jnp.zeros_like(r), jnp.zeros((), r.dtype), jnp.ones((), r.dtype)
    z = precondition(r)
    gamma = jnp.sqrt(jnp.maximum(dot(r, z), 0))
    return _Minres(
        *(zeros, r, r, zeros, z, zeros, zeros, gamma, one, gamma),
        *(one, one, zero, zero, jnp.zeros((), jnp.int32), ~(gamma > 0)),
    )


def _minres_step(q: _Minres, matvec: Map, precondition: Map, tolerance: Array) -> _Minres:
    eps = jnp.finfo(q.r.dtype).eps
    z = q.z / q.gamma
    az = matvec(z)
    delta = dot(az, z)
    v = az - (delta / q.gamma) * q.v - jnp.where(q.k > 0, q.gamma / q.gamma_old, 0) * q.v_old
    z_new = precondition(v)
    gamma = jnp.sqrt(jnp.maximum(dot(z_new, v), 0))
    # The Krylov space is exhausted.
    last = ~(gamma > eps * jnp.hypot(delta, q.gamma))
    gamma = jnp.where(last, 0, gamma)
    a0 = q.c * delta - q.c_old * q.s * q.gamma
    a1 = jnp.hypot(a0, gamma)
    a2 = q.s * delta + q.c_old * q.c * q.gamma
    a3 = q.s_old * q.gamma
    singular = ~(a1 > eps * (jnp.abs(delta) + q.gamma))
    safe = jnp.where(singular, 1, a1)
    c, s = a0 / safe, gamma / safe
    w = jnp.where(singular, 0, (z - a3 * q.w_old - a2 * q.w) / safe)
    x = q.x + c * q.eta * w
    eta = -s * q.eta
    # r_k = s^2 r_(k-1) + c eta v / gamma: the residual itself, since eta is its norm only without preconditioner.
    r = s**2 * q.r + c * eta * v / jnp.where(gamma > 0, gamma, 1)
    done = last | singular | (norm2(r) <= 0.999 * tolerance)
    following = jnp.where(gamma > 0, gamma, 1)
    return _Minres(x, r, v, q.v, z_new, w, q.w, following, q.gamma, eta, c, q.c, s, q.s, q.k + 1, done)


class BiCgStab(eqx.Module):
    """Stabilised bi-conjugate gradients for any matrix, in eight vectors, preconditioned from the right.

    Two products per iteration. The residual does not fall steadily, and the method may break down; it then starts
    again from the best point, or ends as STAGNATED. `Gmres` is the safer choice where its memory is no concern.

    Args:
        max_steps: largest number of products.

    Raises:
        ValueError: for a number below 1.

    Example:
        >>> BiCgStab()
        BiCgStab()

    Reference:
        H. A. van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992) 631.
    """

    max_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)

    def solve(
        self, matvec: Map, b: Array, x: Array | None, precondition: Map, tolerance: Array
    ) -> tuple[Array, LinearStats]:
        """Solve A x = b from vectors; returns (x, LinearStats)."""

        def cycle(r: Array, beta: Array, most: Array) -> tuple:
            zeros, one = jnp.zeros_like(r), jnp.ones((), r.dtype)
            start = _Stab(zeros, r, zeros, zeros, one, one, one, jnp.zeros((), jnp.int32), jnp.asarray(False))
            s = lax.while_loop(
                lambda s: ~s.done & ((s.k == 0) | (2 * s.k + 2 < most)),
                lambda s: _stab_step(s, r, matvec, precondition, tolerance),
                start,
            )
            return s.x, s.k, 2 * s.k

        return in_cycles(cycle, matvec, b, x, tolerance, self.max_steps)


class _Stab(NamedTuple):
    x: Array
    r: Array
    p: Array
    v: Array
    rho: Array
    alpha: Array
    omega: Array
    k: Array
    done: Array


def _stab_step(q: _Stab, shadow: Array, matvec: Map, precondition: Map, tolerance: Array) -> _Stab:
    eps = jnp.finfo(shadow.dtype).eps
    rho = dot(shadow, q.r)
    beta = rho / q.rho * (q.alpha / q.omega)
    p = q.r + jnp.where(q.k > 0, beta, 0) * (q.p - q.omega * q.v)
    y = precondition(p)
    v = matvec(y)
    overlap = dot(shadow, v)
    # Breakdown is a matter of size relative to the vectors: in the left half-plane these numbers are negative.
    broken = ~(jnp.abs(rho) > eps**2 * norm2(shadow) * norm2(q.r))
    broken = broken | ~(jnp.abs(overlap) > eps * norm2(shadow) * norm2(v))
    alpha = jnp.where(broken, 0, rho / jnp.where(broken, 1, overlap))
    half = q.r - alpha * v
    z = precondition(half)
    t = matvec(z)
    length = dot(t, t)
    enough = norm2(half) <= 0.999 * tolerance
    omega = jnp.where((length > 0) & ~broken & ~enough, dot(t, half) / jnp.where(length > 0, length, 1), 0)
    x = q.x + alpha * y + omega * z
    r = half - omega * t
    done = broken | enough | (omega == 0) | (norm2(r) <= 0.999 * tolerance)
    alpha, omega = (jnp.where(done, 1, value) for value in (alpha, omega))
    return _Stab(x, r, p, v, jnp.where(done, 1, rho), alpha, omega, q.k + 1, done)
