"""The rows of fixed points in the table of `solvers validate`."""

import pytest

from solvers.evidence.fixed_points import ROWS

QUICK = ("fixed-kinsol",)


@pytest.mark.parametrize(
    "row",
    [row if row.name in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in ROWS],
    ids=lambda r: r.name,
)
def test_fixed_points_keep_their_bounds(row):
    found = row.compute()
    assert found.ok, found
