"""Remainders of a Taylor series: which power of the step they follow, as far as round-off lets one look."""

import math
from collections.abc import Callable

import numpy as np

from .reports import Remainder

# A remainder is read only where it is so many times above its round-off. Thirty times moves a rate by about 0.03;
# float64 has digits to spare for 0.003.
CLEAN, CLEAN_DOUBLE = 30.0, 300.0
# A line through fewer points proves nothing; more of them would reach into steps where the next term is large.
FEWEST, MOST = 3, 5
# Largest distance of a point from the fitted curve, in powers of two, for a window that has a rate at all: twice what
# round-off can do at a clean point.
STRAIGHT = 0.1


def judge(
    hs: np.ndarray,
    values: np.ndarray,
    floor: np.ndarray,
    change: np.ndarray,
    *,
    expected: int,
    tolerance: float | int,
    eps: float,
) -> Remainder:
    """Fit the rate of one remainder over the smallest clean steps, and say what it means.

    The fit is log2 R = a + p log2 h + q h, whose last term is the next one of the series; over three points without it.

    Args:
        hs: steps, descending.
        values: remainder at each step.
        floor: round-off of the remainder at each step.
        change: |f(x + h d) - f(x)|.
        expected: power of h by theory.
        tolerance: allowed distance from it.
        eps: machine epsilon.
    """
    finite = np.isfinite(values) & np.isfinite(floor)
    if not finite.any():
        return Remainder(expected, values, math.nan, None, "not finite")
    window = clean_window(finite & (values > (CLEAN_DOUBLE if eps < 1e-12 else CLEAN) * floor))
    if window is None:
        # Too small to fit, at the largest step too: right to half of the digits of the change of f, or nothing seen.
        first = int(np.argmax(finite))
        exact = values[first] <= math.sqrt(eps) * change[first]
        return Remainder(expected, values, math.nan, None, "round-off" if exact else "no window")
    h, y = hs[window], np.log2(values[window])
    matrix = np.stack([np.ones_like(h), np.log2(h)] + ([h / h[0]] if len(h) > FEWEST else []), axis=1)
    fit = np.linalg.lstsq(matrix, y, rcond=None)[0]
    rate = float(fit[1])
    power = max(round(rate), expected)
    if np.max(np.abs(matrix @ fit - y)) > STRAIGHT:
        verdict = "unclear"
    elif rate < expected - tolerance:
        verdict = "wrong"
    elif abs(rate - power) > tolerance:
        verdict = "unclear"
    else:
        verdict = "rate" if power == expected else "higher"
    return Remainder(expected, values, rate, (float(h[0]), float(h[-1])), verdict)


def clean_window(clean: np.ndarray) -> slice | None:
    """The last run of `FEWEST` to `MOST` true entries, or None: the smallest steps, where the lowest power rules.

    Example:
        >>> clean_window(np.array([True, True, True, True, False, True, False]))
        slice(0, 4, None)
    """
    stop = len(clean)
    while stop >= FEWEST:
        start = stop
        while start > 0 and clean[start - 1] and stop - start < MOST:
            start -= 1
        if stop - start >= FEWEST:
            return slice(start, stop)
        stop = min(start, stop - 1)
    return None


def resolution(hs: np.ndarray, first: Remainder, slope: float, tolerance: float | int) -> float:
    """Relative error of the slope that moves the rate of R1 by the tolerance, at the middle of its window.

    With an error e of the slope R1 = c h^2 + e h, whose rate is 2 - e / (c h) for small e.
    """
    if first.window is None or slope == 0:
        return math.nan
    inside = (hs <= first.window[0]) & (hs >= first.window[1])
    return float(tolerance * np.exp(np.mean(np.log(first.values[inside] / hs[inside]))) / abs(slope))


def round_off(evaluate: Callable[[float], float], eps: float) -> float:
    """Standard deviation of the round-off of one value of f, from differences of eight neighbouring values.

    The k-th difference of a smooth function is of order delta^k, that of independent errors has the variance
    binomial(2 k, k) sigma^2. The mean over k = 3, 4, 5 is taken, and at least the rounding of the result alone,
    12^(-1/2) units in the last place.

    Reference:
        J. J. More, S. M. Wild, SIAM J. Sci. Comput. 33 (2011) 1292, section 3.
    """
    delta = 2.0 ** round(math.log2(eps) / 2)
    values = np.array([evaluate(i * delta) for i in range(8)])
    variances = [np.mean(np.diff(values, k) ** 2) / math.comb(2 * k, k) for k in (3, 4, 5)]
    return max(math.sqrt(np.mean(variances)), 0.3 * eps * abs(float(values[0])))
