"""The table of `solvers validate`: which rows there are, and how they are run and printed."""

import time

from ..tables import aligned
from . import digits, fixed_points, generation, periodic, sampling, semilinear, waves
from .record import Evidence, Row

ROWS: tuple[Row, ...] = (
    *waves.ROWS,
    *fixed_points.ROWS,
    *periodic.ROWS,
    *semilinear.ROWS,
    *sampling.ROWS,
    *generation.ROWS,
    *digits.ROWS,
)
HEADER = ("quantity", "ours", "reference", "source", "error", "bound", "seconds", "")


def names(start: str | None = None) -> list[str]:
    """Names of the rows that begin with `start`, all by default, long ones too."""
    return [row.name for row in ROWS if row.name.startswith(start or "")]


def named(start: str | None = None) -> list[Row]:
    """Rows whose name begins with `start`, all by default; a long one only where `start` is its full name."""
    return [row for row in ROWS if row.name.startswith(start or "") and (not row.long or row.name == start)]


def validate(start: str | None = None) -> bool:
    """Compute the rows, print the table, and tell whether every bound was kept.

    A row that cannot be computed counts as missed and says why.
    """
    asked, problems = named(start), []
    rows, lines = [row for row in asked if not row.gpu or _has_gpu()], []
    for number, row in enumerate(rows, 1):
        print(f"{number} of {len(rows)}: {row.name}", flush=True)
        begin = time.perf_counter()
        try:
            found = row.compute()
        except Exception as problem:
            # One broken row must not hide the others.
            found = Evidence(float("nan"), float("nan"), float("nan"), float("nan"))
            problems.append(f"{row.name}: {type(problem).__name__}: {problem}")
        if not found.ok:
            problems.append(f"{row.name}: error {found.error:.3g} above the bound {found.bound:.3g}")
        lines.append((*_cells(row, found), f"{time.perf_counter() - begin:.1f}", "ok" if found.ok else "MISSED"))
    print("\n" + aligned(HEADER, lines))
    if len(rows) < len(asked):
        print(f"Left out, since no GPU is at hand: {', '.join(row.name for row in asked if row not in rows)}.")
    left = [name for name in names(start) if name not in {row.name for row in asked}]
    if left:
        print(f"Left out, since they take minutes: {', '.join(left)}. Ask for each by its full name.")
    for sentence in problems:
        print(sentence)
    return not problems


def _has_gpu() -> bool:
    import jax

    return jax.default_backend() != "cpu"


def _cells(row: Row, found: Evidence) -> tuple[str, ...]:
    ours, reference = (f"{x:.6g}" for x in (found.ours, found.reference))
    return row.quantity, ours, reference, row.source, f"{found.error:.1e}", f"{found.bound:.1e}"
