"""The rows of sampling and long runs in the table of `solvers validate`."""

import pytest

from solvers.evidence.sampling import ROWS

QUICK = {"sampling.ess", "long_run.moments"}


def cases():
    return [pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.name not in QUICK)) for row in ROWS]


@pytest.mark.parametrize("row", cases())
def test_samples_keep_their_bounds(row):
    found = row.compute()
    assert found.ok, found


def test_the_quick_rows_are_there():
    assert QUICK < {row.name for row in ROWS}
