"""The rows of generation in the table of `solvers validate`."""

import pytest

from solvers.evidence import rows
from solvers.evidence.generation import ROWS


def test_the_rows_are_in_the_table():
    assert {row.name for row in ROWS} == set(rows.names("generation"))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_generation_keeps_its_bounds(row):
    found = row.compute()
    assert found.ok, found
