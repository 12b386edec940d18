"""Draw samples: one door, `sample`, for every kernel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checks import whole
from ..core.host_loop import bytes_of, drive, settled, shape_of
from ..core.long_run import as_plan, as_sinks, check_observe, describe, observed, shapes
from ..core.status import SolverError, Status
from .chain_checks import check_start, checked, takes_key, what_to_adapt
from .diagnostics import Summary, diagnose
from .parallel import Ensemble, Tally, acceptance_of, finite_chains, report, spread
from .warmup import warm_up

# Random numbers drawn at once: of so many steps at most, and of so many bytes.
MOST_AHEAD, ROOM = 64, 1 << 20


class Samples(eqx.Module):
    """What `sample` returns; arrays are on the host, chains first.

    Attributes:
        draws: what was observed, (chains, steps / thin, ...); None where there are sinks.
        statistics: reports of the steps that ended in a draw, (chains, steps / thin): acceptance, divergent,
            logdensity, as far as the kernel knows them; None where there are sinks.
        sinks: results of the sinks, by name.
        acceptance: mean acceptance of each chain over all steps after the warm-up; NaN where the kernel tells none.
        divergences: number of divergent steps of each chain.
        nonfinite: number of proposals of each chain that were not finite. They were rejected.
        gradients: number of gradients of each chain, where the kernel counts them.
        positions: where the chains stand now.
        kernel: the kernel with its adapted step and metric.
        steps: number of steps after the warm-up.
        stopped: whether the rule `until` ended the run.
        status: OK, or NONFINITE.
        failed_step: per chain, the step after which its state was first seen not finite (looked for every 64 steps
            and at the end), or -1.
    """

    draws: Any
    statistics: Any
    sinks: dict
    acceptance: np.ndarray
    divergences: np.ndarray
    nonfinite: np.ndarray
    gradients: np.ndarray
    positions: Any
    kernel: Any
    steps: int
    stopped: bool
    status: Status
    failed_step: np.ndarray

    def check(self) -> "Samples":
        """Return the samples themselves, or raise `SolverError` if a chain failed.

        Raises:
            SolverError: with the chains and the step, and what to do.
        """
        if self.status.ok:
            return self
        gone = np.flatnonzero(self.failed_step >= 0)
        if gone.size:
            raise SolverError(
                f"NONFINITE: {gone.size} of {self.failed_step.size} chains are not finite any more, the first after "
                f"step {int(self.failed_step[gone].min())}. Take a smaller step."
            )
        held = np.flatnonzero(self.nonfinite)
        raise SolverError(
            f"NONFINITE: {held.size} of {self.nonfinite.size} chains met values that are not finite "
            f"({int(self.nonfinite.sum())} times), and the kernel has no Metropolis correction that would make it "
            "right. Take a smaller step, or Tamed or Mala."
        )

    def summary(self) -> Summary:
        """Mean, sd, mcse, ess_bulk, ess_tail and r_hat of every quantity; `print` shows a table and what to distrust.

        Raises:
            ValueError: for fewer than 4 draws per chain, or if draws were not kept.
        """
        return diagnose(self._kept(), self.remarks)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the run has to say for itself, in sentences."""
        found = []
        total = self.steps * self.divergences.size
        if self.divergences.any():
            found.append(
                f"{int(self.divergences.sum())} of {total} steps were divergent: a region of high curvature is not "
                "explored well. Take a smaller step, or other parameters."
            )
        if self.nonfinite.any():
            found.append(f"{int(self.nonfinite.sum())} of {total} proposals were not finite and were rejected.")
        stuck = int((self.acceptance < 0.01).sum()) if np.isfinite(self.acceptance).all() else 0
        if stuck:
            found.append(f"{stuck} of {self.acceptance.size} chains accept less than 1 % of their proposals.")
        return tuple(found)

    def to_arviz(self) -> Any:
        """The draws as ArviZ knows them: InferenceData, or from version 1 on a DataTree. Needs `solvers[io]`.

        Raises:
            ImportError: if ArviZ is not installed.
            ValueError: if draws were not kept.
        """
        import arviz

        draws = self._kept()
        posterior = {
            jax.tree_util.keystr(path).strip("[]'.").replace("']['", ".") or "x": np.asarray(x)
            for path, x in jax.tree_util.tree_leaves_with_path(draws)
        }
        names = {"acceptance": "acceptance_rate", "divergent": "diverging", "logdensity": "lp"}
        stats = {names[key]: np.asarray(x) for key, x in (self.statistics or {}).items() if key in names}
        if int(arviz.__version__.split(".")[0]) >= 1:
            return arviz.from_dict({"posterior": posterior, "sample_stats": stats})
        return arviz.from_dict(posterior=posterior, sample_stats=stats)

    def _kept(self) -> Any:
        if self.draws is None:
            raise ValueError("No draws were kept, because there are sinks: their results are in `sinks`.")
        return self.draws


def sample(
    kernel: Any,
    key: Any,
    positions: Any,
    *,
    steps: int,
    warmup: int = 0,
    thin: int = 1,
    observe: Any = None,
    progress: Any = False,
    checkpoint: str | Path | None = None,
    sinks: Any = None,
    until: Callable | None = None,
    every: int | None = None,
    chunk: int | None = None,
    adapt: Any = None,
) -> Samples:
    """Run chains of a kernel: `warmup` steps to adapt it, then `steps` steps to draw from.

    Step n of chain c uses the key fold_in(fold_in(key, c), n), the steps of the warm-up counted first. So the first
    draws of a long run are those of a short one, and a chain sees the same noise however many chains there are. On
    several devices the chains are shared out equally as far as their number can be divided. Chunks, interruptions and
    resumes change no bit; see `run`, whose host loop this is, for checkpoints, sinks and rules.

    A warm-up adapts, over all chains together, the step size to the kernel's target acceptance (dual averaging), and a
    diagonal metric where the kernel has none of its own. Kernels without Metropolis correction keep their step and
    metric, because both decide their bias, unless `adapt` says otherwise; foreign kernels keep everything. Draws of the
    warm-up are thrown away.

    Args:
        kernel: such as `Mala(logdensity, step=0.1)`; any object with `init(position)` or `init(position, key)` and
            `step(key, state) -> (state, info)`, where `state.position` is the position: kernels of BlackJAX, too.
        key: from `jax.random.key(seed)`.
        positions: pytree of floating arrays with a leading axis of chains, one start per chain.
        steps: steps of each chain after the warm-up, a multiple of `thin`.
        warmup: steps of each chain that adapt the kernel.
        thin: keep every so manieth draw.
        observe: function of one position, or a tuple, list or dict of functions; its values are kept instead of
            positions.
        progress: True for a bar on a terminal, or a function of (steps done, steps), both with the warm-up.
        checkpoint: file to write to and to resume from by a second call with the same arguments. Draws go into a folder
            beside it; the warm-up has a file of its own, `<checkpoint>.warmup`, and can be killed like the rest.
        sinks: dict of statistics in constant memory, `Moments()`, `Quantiles()`, `BatchMeans()`, `Draws(folder)`;
            draws are then not kept.
        until: function of the results of the sinks that returns True to stop.
        every: steps between checkpoints and calls of `until`; see `run`.
        chunk: steps per chunk; see `run`.
        adapt: what the warm-up adapts: `AdaptStep()`, `AdaptDiagonal()`, `AdaptLowRank(rank)`; by default the step, and
            a diagonal metric if the kernel's metric is the identity.

    Returns:
        `Samples`; `print(run.summary())` shows the diagnostics.

    Raises:
        ValueError: for positions, numbers of steps, a metric or a density that cannot be right, as far as it can be
            seen; for `adapt` without a warm-up.
        TypeError: for a key or positions of a wrong kind, inside `jit`, `vmap` or `grad`.
        CheckpointError: see `run`.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> kernel = sv.Mala(lambda x: -0.5 * jnp.sum(x**2), step=0.1)
        >>> run = sample(kernel, jax.random.key(0), jnp.zeros((4, 2)), steps=2000, warmup=500)
        >>> run.draws.shape, bool(abs(run.draws.mean()) < 0.1), bool(0.4 < run.acceptance.mean() < 0.7)
        ((4, 2000, 2), True, True)

    Reference:
        M. D. Hoffman, A. Gelman, J. Machine Learning Research 15 (2014) 1593, section 3.2; Stan Reference Manual,
        section "Automatic parameter tuning".
    """
    key, positions, chains = checked(kernel, key, positions)
    warmup, sinks = whole(warmup, "warmup", least=0), as_sinks(sinks)
    check_observe(observe)
    adapt = what_to_adapt(kernel, adapt, warmup)
    plan = as_plan(steps, thin, every, chunk, checkpoint, until, sinks, progress)
    plan = plan._replace(keep=not sinks, whole=False)
    # Without weak types, which an adapted step would not have: else the second window would be compiled again.
    kernel, positions = settled((kernel, positions))
    mesh, positions = spread(positions, chains)
    own = jax.vmap(lambda c: jax.random.fold_in(key, c))(jnp.arange(chains, dtype=jnp.uint32))
    ensemble = Ensemble(kernel, own, mesh, takes_key(kernel), fingerprint(kernel))
    states, seen = _start(ensemble, positions)
    check_start((states, seen), chains)
    identity = {"kernel": describe(kernel), "positions": shapes(positions), "warmup": warmup, "adapt": repr(adapt)}
    if warmup:
        total = warmup + plan.ticks * plan.thin
        kernel, states = warm_up(ensemble, states, warmup, adapt, plan, identity, total)
        ensemble = eqx.tree_at(lambda e: e.kernel, ensemble, kernel)
    offset = jnp.asarray(warmup, jnp.uint32)
    ahead = _ahead(ensemble, states)
    march = _Chains(ensemble, observe, offset, members=chains, report=not sinks, ahead=ahead)
    carry = march.enter(states)
    identity |= {"thin": plan.thin, "sinks": shapes(sinks)}
    outcome = drive(march, carry, sinks, plan, identity, before=warmup)
    return _samples(march, outcome)


# ---- What is marched ----


class _Chains(eqx.Module):
    """All chains, what is counted about them, and the last report."""

    ensemble: Ensemble
    observe: Any
    offset: Array  # steps of the warm-up: the first step has this number
    members: int = eqx.field(static=True)
    report: bool = eqx.field(static=True)
    ahead: int = eqx.field(static=True)
    stacked: ClassVar[None] = None

    def ready(self) -> "_Chains":
        return self

    def enter(self, states: Any) -> dict:
        """Before the first step; the shapes of a report show by tracing one."""
        last = shape_of(_report, self.ensemble, states) if self.report else None
        blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), last) if self.report else None
        return {"states": states, "tally": Tally.empty(self.members), "report": blank}

    def draw(self, carry: dict, steps: Array) -> Any:
        return self.ensemble.draw(steps.astype(jnp.uint32) + self.offset, carry["states"])

    def advance(self, carry: dict, n: Array, drawn: Any) -> dict:
        if drawn is None:
            states, info = self.ensemble.step(n.astype(jnp.uint32) + self.offset, carry["states"])
        else:
            states, info = self.ensemble.move(carry["states"], drawn)
        told = _told(info) if self.report else None
        return {"states": states, "tally": carry["tally"].add(info), "report": told}

    def see(self, carry: dict) -> Any:
        positions = carry["states"].position
        seen = positions if self.observe is None else jax.vmap(lambda x: observed(self.observe, x))(positions)
        return {"draws": seen, "statistics": carry["report"]} if self.report else seen

    def healthy(self, carry: dict) -> Array:
        return finite_chains(carry["states"].position, self.members)


def _ahead(ensemble: Ensemble, states: Any) -> int:
    """Steps whose random numbers are drawn at once: many small draws cost far more than one large one."""
    if not ensemble.splits():
        return 1
    one = shape_of(Ensemble.draw, ensemble, jnp.zeros(1, jnp.uint32), states)
    return max(min(MOST_AHEAD, ROOM // max(bytes_of(one), 1)), 1)


def _report(ensemble: Ensemble, states: Any) -> dict[str, Array]:
    return _told(ensemble.step(0, states)[1])


def _told(info: Any) -> dict[str, Array]:
    """What is kept of a report."""
    found = {
        "acceptance": acceptance_of(info),
        "divergent": report(info, "divergent", "is_divergent"),
        "logdensity": report(info, "logdensity"),
    }
    return {name: value for name, value in found.items() if value is not None}


@eqx.filter_jit
def _start(ensemble: Ensemble, positions: Any) -> tuple[Any, Any]:
    """States of all chains, and what must be finite at the start beside them."""
    return ensemble.start(positions), ensemble.at_start(positions)


def _samples(march: _Chains, outcome: Any) -> Samples:
    kernel, tally = march.ensemble.kernel, jax.device_get(outcome.carry["tally"])
    kept = outcome.observed or {"draws": None, "statistics": None}
    gone = (outcome.failed >= 0).any()
    # A kernel with a Metropolis correction may reject what is not finite; one without was held up where it stood.
    unadjusted = hasattr(kernel, "target_acceptance") and kernel.target_acceptance is None
    held = unadjusted and tally.nonfinite.any()
    return Samples(
        draws=kept["draws"],
        statistics=kept["statistics"],
        sinks=outcome.sinks,
        acceptance=np.asarray(tally.acceptance),
        divergences=np.asarray(tally.divergent),
        nonfinite=np.asarray(tally.nonfinite),
        gradients=tally.all_gradients(),
        positions=jax.device_get(outcome.carry["states"].position),
        kernel=kernel,
        steps=outcome.steps,
        stopped=outcome.stopped,
        status=Status.NONFINITE if gone or held else Status.OK,
        failed_step=outcome.failed,
    )
