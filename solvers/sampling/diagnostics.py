"""What draws are worth: rank-normalised split R-hat, bulk and tail effective sample size, Monte Carlo standard error.

All functions take draws of one quantity or of many, shape (chains, draws, ...), and work on the host in double
precision. The names follow the reference, which asks for `r_hat` near 1 and `ess_bulk`, `ess_tail` above 100 per chain.

Reference:
    A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, Bayesian Analysis 16 (2021) 667.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

FEWEST = 4  # draws per chain
TAILS = (0.05, 0.95)
R_HAT = 1.01
ESS_PER_CHAIN = 100
LINES = 40

# An array of the shape of one draw; NumPy turns one without axes into a number.
Value = Any


class Numbers(NamedTuple):
    """Diagnostics of one array of draws; each field has the shape of one draw."""

    mean: np.ndarray
    sd: np.ndarray
    mcse: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    r_hat: np.ndarray


class Summary(eqx.Module):
    """Diagnostics of all quantities; `print` shows a table, and below it what to distrust.

    Attributes:
        numbers: name of an array of draws -> its `Numbers`.
        chains: number of chains.
        draws: number of draws per chain.
        remarks: what the run itself has to say, such as divergences.
    """

    numbers: dict[str, Numbers]
    chains: int
    draws: int
    remarks: tuple[str, ...] = ()

    @property
    def worst_r_hat(self) -> float:
        """Largest R-hat of all quantities; NaN if one is undefined."""
        return float(max((np.max(n.r_hat, initial=0.0) for n in self.numbers.values()), default=np.nan))

    @property
    def least_ess(self) -> float:
        """Smallest effective sample size, bulk or tail, of all quantities; NaN if one is undefined."""
        both = [np.min([n.ess_bulk, n.ess_tail], initial=np.inf) for n in self.numbers.values()]
        return float(min(both, default=np.nan))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to distrust, in sentences; empty if nothing."""
        found = []
        constant = sum(int(np.isnan(n.r_hat).sum()) for n in self.numbers.values())
        total = sum(n.r_hat.size for n in self.numbers.values())
        if constant:
            found.append(f"{constant} of {total} quantities never change or are not finite: they have no diagnostics.")
        high = sum(int((n.r_hat > R_HAT).sum()) for n in self.numbers.values())
        if high:
            worst = max(float(np.nanmax(n.r_hat)) for n in self.numbers.values() if not np.isnan(n.r_hat).all())
            found.append(
                f"R-hat of {high} of {total} quantities exceeds {R_HAT} (largest {_short(worst)}): the chains "
                "disagree. Run longer, warm up longer, or look at traces for separate modes."
            )
        needed = ESS_PER_CHAIN * self.chains
        low = sum(int((np.minimum(n.ess_bulk, n.ess_tail) < needed).sum()) for n in self.numbers.values())
        if low:
            found.append(
                f"The effective sample size of {low} of {total} quantities is below {needed}, {ESS_PER_CHAIN} per "
                "chain: standard errors, tails and R-hat itself are unreliable. Run longer."
            )
        return (*found, *self.remarks)

    def __str__(self) -> str:
        head = ("", "mean", "sd", "mcse", "ess_bulk", "ess_tail", "r_hat")
        rows = [row for name, n in self.numbers.items() for row in _rows(name, n)]
        shown = rows[:LINES]
        widths = [max(map(len, column)) for column in zip(head, *shown, strict=True)]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in (head, *shown)
        ]
        if len(rows) > LINES:
            lines.append(f"... {len(rows) - LINES} more")
        lines.append(f"{self.chains} chains of {self.draws} draws")
        return "\n".join([*lines, *(f"! {sentence}" for sentence in self.warnings)])


def diagnose(draws: Any, remarks: tuple[str, ...] = ()) -> Summary:
    """Diagnostics of draws from any sampler.

    Mean, standard deviation, Monte Carlo standard error of the mean (mcse), effective sample sizes of the bulk and of
    the tails (the smaller one for the 5 % and the 95 % quantile), and R-hat: the larger one of rank-normalised and
    folded split R-hat. Quantities that never change have ess and R-hat NaN. Events (booleans) count as 0 and 1: their
    mean is a probability.

    Args:
        draws: pytree of arrays (chains, draws, ...).
        remarks: sentences to print below the table.

    Returns:
        `Summary`; `print` it.

    Raises:
        ValueError: for fewer than 4 draws per chain, or arrays that do not agree in their first two axes.

    Example:
        >>> import numpy as np
        >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
        >>> found = diagnose(draws)
        >>> bool(found.worst_r_hat < 1.01 and found.least_ess > 2000)
        True

    Reference:
        A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, Bayesian Analysis 16 (2021) 667.
    """
    leaves = jax.tree_util.tree_leaves_with_path(draws)
    sizes = {np.shape(x)[:2] for _, x in leaves}
    if len(sizes) != 1 or len(next(iter(sizes))) != 2:
        raise ValueError(
            f"Draws must have the axes (chains, draws, ...), the same for all arrays; got {sorted(sizes)}."
        )
    chains, count = next(iter(sizes))
    if count < FEWEST or not chains:
        raise ValueError(f"Diagnostics need at least {FEWEST} draws per chain, got {count} from {chains} chains.")
    numbers = {_name(path): _diagnose_one(np.asarray(x)) for path, x in leaves}
    return Summary(numbers, chains, count, remarks)


def _diagnose_one(draws: np.ndarray) -> Numbers:
    if draws.dtype.kind != "f":
        # Events and counts are quantities too: the mean of an event is its probability.
        draws = draws.astype(float)
    shape = draws.shape[2:]
    flat = draws.reshape(*draws.shape[:2], -1)
    told = [[f(flat[..., i : i + 256]) for i in range(0, flat.shape[2], 256)] for f in (_mean, _sd, mcse, *_RANKED)]
    parts = [np.concatenate(blocks) if blocks else np.zeros(0) for blocks in told]
    return Numbers(*(part.reshape(shape) for part in parts))


def r_hat(draws: np.ndarray) -> Value:
    """Rank-normalised split R-hat, the larger one of bulk and folded."""
    split = _halves(draws)
    folded = np.abs(split - np.median(split, axis=(0, 1)))
    return np.maximum(_plain_r_hat(_normal_scores(split)), _plain_r_hat(_normal_scores(folded)))


def ess_bulk(draws: np.ndarray) -> Value:
    """Effective sample size of rank-normalised draws."""
    return ess_mean(_normal_scores(_halves(draws)), split=False)


def ess_tail(draws: np.ndarray) -> Value:
    """Smaller effective sample size of the 5 % and 95 % quantiles.

    A quantile that no draw exceeds (that of an event with a probability above 5 %) has none, and the other one counts.
    """
    draws = np.asarray(draws, float)
    below = [(draws <= np.quantile(draws, q, axis=(0, 1))).astype(float) for q in TAILS]
    return np.fmin(*(ess_mean(x) for x in below))


def mcse(draws: np.ndarray) -> Value:
    """Monte Carlo standard error of the mean."""
    return _sd(draws) / np.sqrt(ess_mean(draws))


def ess_mean(draws: np.ndarray, split: bool = True) -> Value:
    """Effective sample size of the mean by Geyer's initial monotone sequence over all (half) chains.

    With chain means m_c, within variance W and var+ = (n - 1) / n W + var(m_c), the autocorrelation at lag t is
    rho_t = 1 - (W - mean_c acov_t) / var+; ess = N / (-1 + 2 sum of pairs), N the number of draws.
    """
    x = _halves(draws) if split else np.asarray(draws, float)
    chains, n = x.shape[0], x.shape[1]
    moving = np.isfinite(x).all(axis=(0, 1)) & (np.ptp(x, axis=(0, 1)) > 0)
    x = np.where(moving, x, np.arange(chains * n).reshape(chains, n, *[1] * (x.ndim - 2)) % 2)
    acov = autocovariance(x).mean(axis=0)
    within = acov[0] * n / (n - 1)
    total = within * (n - 1) / n + (x.mean(axis=1).var(axis=0, ddof=1) if chains > 1 else 0.0)
    rho = 1 - (within - acov) / total
    rho[0] = 1.0
    count = max((n - 1) // 2, 1)
    pairs = rho[: 2 * count].reshape(count, 2, *rho.shape[1:]).sum(axis=1)
    # From the first negative pair on, or from the last one, only a positive even half still counts, once.
    positive = np.logical_and.accumulate(pairs >= 0, axis=0)
    positive[-1:] = False
    positive[:1] = True
    tau = -1 + 2 * np.where(positive, np.minimum.accumulate(pairs, axis=0), 0.0).sum(axis=0)
    first = np.minimum(positive.sum(axis=0), count - 1)[None]
    even, pair = (np.take_along_axis(x, first, axis=0)[0] for x in (rho[: 2 * count : 2], pairs))
    tau += np.where((first[0] > 0) & ((even > 0) | (pair >= 0)), even, 0.0)
    draws_in_all = chains * n
    return np.where(moving, draws_in_all / np.maximum(tau, 1 / np.log10(draws_in_all)), np.nan)


def autocovariance(draws: np.ndarray) -> Value:
    """Autocovariance of each chain at all lags, by FFT, divided by n."""
    x = np.asarray(draws, float)
    x = x - x.mean(axis=1, keepdims=True)
    n = x.shape[1]
    room = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(x, room, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, room, axis=1)[:, :n] / n


_RANKED = (ess_bulk, ess_tail, r_hat)


def _mean(draws: np.ndarray) -> Value:
    return draws.mean(axis=(0, 1), dtype=float)


def _sd(draws: np.ndarray) -> Value:
    return draws.reshape(-1, *draws.shape[2:]).std(axis=0, ddof=1, dtype=float)


def _halves(draws: np.ndarray) -> Value:
    """Each chain cut in two; the middle draw of an odd number is left out."""
    x = np.asarray(draws, float)
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _normal_scores(draws: np.ndarray) -> Value:
    """Normal quantiles of the ranks (ties share their mean rank): Blom's offset 3/8."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    flat = draws.reshape(-1, *draws.shape[2:])
    ranks = rankdata(flat, axis=0)
    scores = ndtri((ranks - 0.375) / (len(flat) + 0.25))
    return np.where(np.isfinite(flat), scores, np.nan).reshape(draws.shape)


def _plain_r_hat(x: np.ndarray) -> Value:
    n = x.shape[1]
    within = x.var(axis=1, ddof=1).mean(axis=0)
    between = x.mean(axis=1).var(axis=0, ddof=1)
    return np.sqrt((n - 1) / n + between / np.where(within > 0, within, np.nan))


def _name(path: Any) -> str:
    text = jax.tree_util.keystr(path)
    return text.strip("[]'.").replace("']['", ".") or "x"


def _short(r_hat: Any) -> str:
    return f"{r_hat:.3f}" if not r_hat > 100 else "> 100"


def _rows(name: str, n: Numbers) -> list[tuple[str, ...]]:
    rows = []
    for index in np.ndindex(n.mean.shape):
        label = f"{name}[{', '.join(map(str, index))}]" if index else name
        counts = (f"{n.ess_bulk[index]:.0f}", f"{n.ess_tail[index]:.0f}", _short(n.r_hat[index]))
        rows.append((label, *(f"{x[index]:.4g}" for x in (n.mean, n.sd)), f"{n.mcse[index]:.2g}", *counts))
        if len(rows) > LINES:
            # The rest is only counted.
            return rows + [("",) * 7] * (n.mean.size - len(rows))
    return rows
