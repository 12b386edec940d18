"""Reports of the checks in `verify`: each prints as a table, says `.ok`, and raises from `.check()` if it is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .status import SolverError

# What the verdict on a remainder tells the user.
MEANINGS = {
    "round-off": "at round-off for every step, as of a function of this degree",
    "higher": "falls faster than it must, because the next term of the series vanishes along d",
    "wrong": "falls too slowly: the derivative is wrong along d, or the function is not smooth here",
    "unclear": "follows no single power: a small error of the derivative, or steps too large (float64 allows smaller)",
    "no window": "too few steps stand clear of round-off; use float64, larger steps or another direction",
    "not finite": "the function or its derivative is not finite",
}


# What the zeroth remainder, the change of f itself, may not be.
JUMPS = ("wrong", "not finite")


@dataclass(frozen=True, eq=False)
class Remainder:
    """One Taylor remainder of a `GradientReport`.

    Attributes:
        expected: power of the step that it follows if the derivatives are right.
        values: absolute remainder at each step.
        rate: fitted power, NaN where no window of steps is clean.
        window: largest and smallest step of the fit; None where no window is clean.
        verdict: "rate" (fitted, as expected) or one of the keys of `MEANINGS`.
    """

    expected: int
    values: np.ndarray
    rate: float
    window: tuple[float, float] | None
    verdict: str

    @property
    def ok(self) -> bool:
        """True if the remainder falls as it must."""
        return self.verdict in ("rate", "round-off", "higher")


@dataclass(frozen=True, eq=False)
class GradientReport:
    """What `check_gradient` returns; prints as a table.

    Attributes:
        value: f(x).
        slope: directional derivative <g, d> from the gradient.
        steps: steps h, the largest first.
        remainders: R0, R1 and, with the Hessian, R2. R0, the change of f itself, must fall at least at rate 1 where
            it is above round-off; the others decide about the derivatives.
        noise: estimated round-off of one evaluation of f (standard deviation).
        resolution: relative error of the slope that would have shown as a wrong rate of R1.
        tolerance: allowed distance of a rate from theory.
    """

    value: float
    slope: float
    steps: np.ndarray
    remainders: tuple[Remainder, ...]
    noise: float
    resolution: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """True if R1, and R2 where it was asked for, fall at the expected rates, and f itself does not jump."""
        return self.remainders[0].verdict not in JUMPS and all(r.ok for r in self.remainders[1:])

    def check(self) -> "GradientReport":
        """Return the report itself, or raise `SolverError` with the table if the test failed."""
        return _checked(self, "The gradient does not pass the Taylor test")

    def __str__(self) -> str:
        names = [f"R{i}" for i in range(len(self.remainders))]
        rows = [
            f"Taylor test: f(x) = {self.value:.6g}, <g, d> = {self.slope:.6g}, round-off of f {self.noise:.1e}",
            _row("h", names),
            *(_row(f"{h:.2e}", [f"{r.values[i]:.2e}" for r in self.remainders]) for i, h in enumerate(self.steps)),
            _row("rate", [f"{r.rate:.3f}" if np.isfinite(r.rate) else r.verdict for r in self.remainders]),
            _row("theory", [str(r.expected) for r in self.remainders]),
            _row("from h", [f"{r.window[0]:.1e}" if r.window else "-" for r in self.remainders]),
            _row("to h", [f"{r.window[1]:.1e}" if r.window else "-" for r in self.remainders]),
            *(
                f"{n}: {MEANINGS[r.verdict]}"
                for n, r in zip(names, self.remainders, strict=True)
                if (r.verdict != "rate" if n != "R0" else r.verdict in JUMPS)
            ),
        ]
        if self.ok and np.isfinite(self.resolution):
            rows.append(f"passed: an error of the slope above {self.resolution:.1e} of it would show")
        else:
            rows.append("passed" if self.ok else "FAILED")
        return "\n".join(rows)


@dataclass(frozen=True)
class AdjointReport:
    """What `check_adjoint` returns; prints as a table.

    Attributes:
        forward: <J v, w>, from forward mode.
        reverse: <v, J^T w>, from reverse mode.
        error: their difference, divided by the root of the sum of squares of the products that they sum.
        bound: largest error that counts as passed.
    """

    forward: float
    reverse: float
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        """True if the two numbers agree."""
        return bool(self.error <= self.bound)

    def check(self) -> "AdjointReport":
        """Return the report itself, or raise `SolverError` with the numbers if the test failed."""
        return _checked(self, "Forward and reverse mode disagree")

    def __str__(self) -> str:
        verdict = "passed" if self.ok else "FAILED"
        if self.forward == self.reverse == 0.0:
            verdict += ": both are zero, so the output does not depend on the point, or the derivative is cut"
        return "\n".join(
            [
                "Dot-product test",
                f"  <J v, w>    {self.forward:+.15e}",
                f"  <v, J^T w>  {self.reverse:+.15e}",
                f"  error       {self.error:.1e} (bound {self.bound:.1e})",
                verdict,
            ]
        )


@dataclass(frozen=True)
class OrderReport:
    """What `check_order` returns; prints as a table.

    Attributes:
        sizes: number of nodes or steps of each run.
        errors: error of each run.
        slopes: order between successive sizes.
        fit: order by least squares over the three finest sizes; it decides.
        expected: order by theory.
        tolerance: allowed distance of `fit` from `expected`.
    """

    sizes: tuple[float, ...]
    errors: tuple[float, ...]
    slopes: tuple[float, ...]
    fit: float
    expected: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """True if the fitted order is the expected one."""
        return bool(abs(self.fit - self.expected) <= self.tolerance)

    def check(self) -> "OrderReport":
        """Return the report itself, or raise `SolverError` with the table if the test failed."""
        return _checked(self, "The measured order is not the expected one")

    def __str__(self) -> str:
        slopes = ["-", *(f"{s:.3f}" for s in self.slopes)]
        rows = [_row("size", ["error", "order"])]
        for size, error, slope in zip(self.sizes, self.errors, slopes, strict=True):
            rows.append(_row(f"{size:g}", [f"{error:.3e}", slope]))
        rows.append(
            f"order {self.fit:.3f} over the three finest, expected {self.expected:g} +- {self.tolerance:g}: "
            + ("passed" if self.ok else "FAILED")
        )
        return "\n".join(rows)


def _row(first: str, rest: Sequence[str]) -> str:
    width = max(8, *(len(r) for r in rest))
    return f"{first:>8}" + "".join(f"{r:>{width + 3}}" for r in rest)


def _checked(report: Any, sentence: str) -> Any:
    if not report.ok:
        raise SolverError(f"{sentence}.\n{report}")
    return report
