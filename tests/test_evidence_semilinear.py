"""The rows of semilinear equations in the table of `solvers validate`."""

import pytest

from solvers.evidence.semilinear import ROWS

QUICK = ("periodic-linear",)


@pytest.mark.parametrize(
    "row", [row if row.name in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in ROWS],
    ids=[row.name for row in ROWS],
)  # fmt: skip
def test_semilinear_equations_keep_their_bounds(row):
    found = row.compute()
    assert found.ok, found
