"""Underdamped (kinetic) Langevin dynamics by splitting: `Kinetic`, and its best words `Baoab`, `Obabo`, `Ubu`."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .density import Point, as_kernel_fields, as_step, evaluate, log_ratio, start_point
from .kernel import Info, all_finite, choose, metropolis, unadjusted
from .mala import as_target
from .metric import white_noise
from .vectors import add, dot, log_uniform, plus, scale


class KineticState(eqx.Module):
    """State of a kinetic chain.

    Attributes:
        point: position and what is known about the density there.
        velocity: w, in the white space of the metric, where its stationary law is standard normal.
    """

    point: Point
    velocity: Any

    @property
    def position(self) -> Any:
        return self.point.position

    @property
    def logdensity(self) -> Any:
        return self.point.logdensity


class Kinetic(eqx.Module):
    """Kinetic Langevin dynamics by a splitting scheme that is spelled by its letters.

        dx = L w dt,        dw = L^T grad log pi(x) dt - gamma w dt + sqrt(2 gamma) dW,        A = L L^T

    whose stationary law is pi(x) times a standard normal law of the velocity w (in units in which the mass is A^-1).
    Each letter stands for the exact solution of a part of it over the time h / (how often the letter occurs):

        A   x += t L w                                            (drift)
        B   w += t L^T grad log pi(x)                             (kick)
        O   w = exp(-gamma t) w + (1 - exp(-2 gamma t))^(1/2) xi  (friction and noise)
        U   A and O together, exactly

    `Baoab` is the best known for averages over positions, exact on Gaussians; `Ubu` is of second order with the
    smallest constant for a strongly log-concave pi; `Obabo` is the scheme whose middle is a leapfrog step. All words
    that read the same backwards are of second order: the stationary law is wrong by O(h^2). One gradient per step for
    all of these.

    With `metropolis=True` a step is accepted with probability min(1, exp(-W)) and the velocity is turned round
    if not, where W is the energy that the letters A and B do not conserve: pi is then kept exactly,

        -W = log pi(x') - log pi(x) - sum over all kicks of the change of |w|^2 / 2.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        scheme: a word of A, B and O, or of B and U.
        step: h, the time step (not its square); differentiable.
        friction: gamma, positive, in one over the unit of time; differentiable.
        metric: A, an operator such as `DiagonalMetric`; by default the identity.
        score: grad log pi, in place of or in addition to `logdensity`.
        metropolis: accept or reject each step.
        target_acceptance: mean acceptance to which a warm-up adapts the step, with `metropolis=True`. High, since a
            rejection turns the velocity round.

    Raises:
        ValueError: if step or friction is not positive, or the scheme is none.
        TypeError: if neither `logdensity` nor `score` is given, or the correction lacks `logdensity`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Kinetic(lambda x: -0.5 * jnp.sum(x**2), scheme="ABOBA", step=0.5)
        >>> state = kernel.init(jnp.ones(3), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> state.position.shape, state.velocity.shape
        ((3,), (3,))

    Reference:
        B. Leimkuhler, C. Matthews, Molecular Dynamics (2015), chapter 7; UBU: A. Alamo Zapatero, thesis (2017), and
        J. M. Sanz-Serna, K. C. Zygalakis, J. Mach. Learn. Res. 22 (2021) 242; correction: D. A. Sivak, J. D. Chodera,
        G. E. Crooks, J. Phys. Chem. B 118 (2014) 6466 (W is the shadow work).
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    score: Callable | None
    friction: Array
    scheme: str = eqx.field(static=True)
    metropolis: bool = eqx.field(static=True)
    target_acceptance: float | None = eqx.field(static=True)
    time_step: ClassVar[bool] = True

    def __init__(
        self,
        logdensity: Callable | None = None,
        *,
        scheme: str = "BAOAB",
        step: Any,
        friction: Any = 1.0,
        metric: Any = None,
        score: Callable | None = None,
        metropolis: bool = False,
        target_acceptance: float = 0.9,
    ):
        fields = as_kernel_fields(logdensity, step, metric, score, needs_density=metropolis)
        self.logdensity, self.step_size, self.metric, self.score = fields
        self.friction = as_step(friction, "friction")
        self.scheme, self.metropolis = _checked(scheme, metropolis), metropolis
        self.target_acceptance = as_target(target_acceptance) if metropolis else None

    def init(self, position: Any, key: Array) -> KineticState:
        """State of a chain that starts at the position, with a random velocity."""
        point = start_point(self.logdensity, self.score, position)
        if self._ends_moving:
            # The next step asks for the score elsewhere first: none is carried along, nor is a density without need.
            point = (
                evaluate(self.logdensity, None, point.position, gradient=False)
                if self.metropolis
                else Point(point.position)
            )
        return KineticState(point, white_noise(self.metric, key, point.position))

    def at_start(self, position: Any, key: Array) -> Point:
        """Density and score at the start, which the state does not keep if the scheme ends moving."""
        return start_point(self.logdensity, self.score, position)

    def noise(self, key: Array, state: KineticState) -> dict:
        """All random numbers of one step: normal ones for each O, two for each U, and the one that decides."""
        count = self.scheme.count("O") + 2 * self.scheme.count("U")
        *keys, last = jax.random.split(key, count + 1)
        normal = [white_noise(self.metric, k, state.position) for k in keys]
        decide = {"log_uniform": log_uniform(last, state.position)} if self.metropolis else {}
        return {"normal": normal, **decide}

    def move(self, state: KineticState, noise: dict) -> tuple[KineticState, Info]:
        """One step with the given random numbers."""
        path = _Path(self, state)
        normal = iter(noise["normal"])
        for letter in self.scheme:
            t = self.step_size / self.scheme.count(letter)
            if letter == "A":
                path.drift(t)
            elif letter == "B":
                path.kick(t)
            elif letter == "O":
                path.rub(t, next(normal))
            else:
                path.rub_and_drift(t, next(normal), next(normal))
        point, gradients = path.point(), path.gradients
        back = KineticState(state.point, scale(-1.0, state.velocity))
        if not self.metropolis:
            usable = all_finite((point, path.velocity))
            new = choose(usable, KineticState(point, path.velocity), back)
            return new, unadjusted(new.point, usable, gradients)
        log_alpha = log_ratio(point, state.point) - path.gained
        log_alpha = jnp.where(point.logdensity == -jnp.inf, -jnp.inf, log_alpha)
        usable = all_finite((point, path.velocity))
        acceptance, accepted, nonfinite, divergent = metropolis(log_alpha, usable, noise["log_uniform"])
        new = choose(accepted, KineticState(point, path.velocity), back)
        counted = jnp.asarray(gradients, jnp.int32)
        return new, Info(acceptance, accepted, nonfinite, divergent, new.point.logdensity, counted)

    def step(self, key: Array, state: KineticState) -> tuple[KineticState, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))

    @property
    def _ends_moving(self) -> bool:
        """Whether the position still moves after the last kick."""
        return max(self.scheme.rfind("A"), self.scheme.rfind("U")) > self.scheme.rfind("B")


class _Path:
    """One step, letter by letter; lives only while `Kinetic.move` is traced."""

    def __init__(self, kernel: Kinetic, state: KineticState):
        self.kernel, self.position, self.velocity = kernel, state.position, state.velocity
        self.known: Point | None = state.point
        self.gained: Any = 0.0  # what the kicks added to |w|^2 / 2
        self.gradients = 0

    def drift(self, t: Array) -> None:
        self.position = add(self.position, self.kernel.metric.sqrt(scale(t, self.velocity)))
        self.known = None

    def kick(self, t: Array) -> None:
        if self.known is None or self.known.score is None:
            self.known = evaluate(self.kernel.logdensity, self.kernel.score, self.position)
            self.gradients += 1
        push = scale(t, self.kernel.metric.sqrt_transpose(self.known.score))
        if self.kernel.metropolis:
            self.gained = self.gained + dot(push, plus(self.velocity, 0.5, push))
        self.velocity = add(self.velocity, push)

    def rub(self, t: Array, xi: Any) -> None:
        a = self.kernel.friction * t
        self.velocity = add(scale(jnp.exp(-a), self.velocity), scale(jnp.sqrt(-jnp.expm1(-2 * a)), xi))

    def rub_and_drift(self, t: Array, xi: Any, eta: Any) -> None:
        """The exact solution of both: given w at both ends, the integral of w is normal with

        mean tanh(a / 2) (w + w') / gamma and variance 2 (a - 2 tanh(a / 2)) / gamma^2, a = gamma t.
        """
        gamma, a, old = self.kernel.friction, self.kernel.friction * t, self.velocity
        self.rub(t, xi)
        way = scale(jnp.tanh(a / 2) / gamma, add(old, self.velocity))
        way = plus(way, jnp.sqrt(2 * _a_minus_two_tanh(a)) / gamma, eta)
        self.position = add(self.position, self.kernel.metric.sqrt(way))
        self.known = None

    def point(self) -> Point:
        """The end of the path, with what the next step and the report need."""
        if self.known is not None:
            return self.known
        if self.kernel.metropolis:
            return evaluate(self.kernel.logdensity, None, self.position, gradient=False)
        return Point(self.position)


def _a_minus_two_tanh(a: Array) -> Array:
    """a - 2 tanh(a / 2), by its series below 0.2, where the difference would lose more than 300 roundings."""
    q = a * a
    terms = (1 / 12, -1 / 120, 17 / 20160, -31 / 362880, 691 / 79833600, -5461 / 6227020800)
    series = jnp.zeros_like(a)
    for term in reversed(terms):
        series = series * q + term
    return jnp.where(a < 0.2, a * q * series, a - 2 * jnp.tanh(a / 2))


def _checked(scheme: str, metropolis: bool) -> str:
    letters = set(scheme)
    if letters not in ({"A", "B", "O"}, {"B", "U"}):
        raise ValueError(
            f"`scheme` must be a word of A, B and O, or of B and U, with each letter in it; got {scheme!r}."
        )
    if metropolis and scheme != scheme[::-1]:
        raise ValueError(f"The Metropolis correction needs a scheme that reads the same backwards, got {scheme!r}.")
    return scheme


def Baoab(
    logdensity: Callable | None = None,
    *,
    step: Any,
    friction: Any = 1.0,
    metric: Any = None,
    score: Callable | None = None,
    metropolis: bool = False,
) -> Kinetic:
    """The kernel `Kinetic` with the scheme BAOAB: the default for averages over positions.

    On a Gaussian the stationary law of the positions is exact for every stable h (h < 2 s); elsewhere the error is
    O(h^2), and O(h^4) for large friction. One gradient per step. Arguments as in `Kinetic`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Baoab(lambda x: -0.5 * jnp.sum(x**2), step=0.5)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.ones(3), jax.random.key(0)))
        >>> int(info.gradients)
        1

    Reference:
        B. Leimkuhler, C. Matthews, J. Chem. Phys. 138 (2013) 174102.
    """
    return Kinetic(
        logdensity, scheme="BAOAB", step=step, friction=friction, metric=metric, score=score, metropolis=metropolis
    )


def Obabo(
    logdensity: Callable | None = None,
    *,
    step: Any,
    friction: Any = 1.0,
    metric: Any = None,
    score: Callable | None = None,
    metropolis: bool = False,
) -> Kinetic:
    """The kernel `Kinetic` with the scheme OBABO: a leapfrog step between two half steps of friction and noise.

    The velocities are exact on a Gaussian, the positions have the variance s^2 / (1 - h^2 / (4 s^2)). With
    `metropolis=True` it is a hybrid Monte Carlo step with partial refreshment. One gradient per step. Arguments as in
    `Kinetic`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Obabo(lambda x: -0.5 * jnp.sum(x**2), step=0.5, metropolis=True)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.ones(3), jax.random.key(0)))
        >>> bool(info.acceptance > 0.8)
        True

    Reference:
        G. Bussi, M. Parrinello, Phys. Rev. E 75 (2007) 056707.
    """
    return Kinetic(
        logdensity, scheme="OBABO", step=step, friction=friction, metric=metric, score=score, metropolis=metropolis
    )


def Ubu(
    logdensity: Callable | None = None,
    *,
    step: Any,
    friction: Any = 1.0,
    metric: Any = None,
    score: Callable | None = None,
    metropolis: bool = False,
) -> Kinetic:
    """The kernel `Kinetic` with the scheme UBU: kicks between exact solutions of everything else.

    Strong order two with one gradient per step: the fewest gradients for a given distance from pi when pi is smooth
    and strongly log-concave. Not exact on Gaussians. Arguments as in `Kinetic`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Ubu(score=lambda x: -x, step=0.5)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.ones(3), jax.random.key(0)))
        >>> int(info.gradients)
        1

    Reference:
        J. M. Sanz-Serna, K. C. Zygalakis, J. Mach. Learn. Res. 22 (2021) 242.
    """
    return Kinetic(
        logdensity, scheme="UBU", step=step, friction=friction, metric=metric, score=score, metropolis=metropolis
    )
