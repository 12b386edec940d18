"""The rows of periodic flow in the table of `solvers validate`."""

import pytest

from solvers.evidence import rows
from solvers.evidence.periodic import ROWS


def test_a_row_that_takes_minutes_runs_only_by_its_full_name():
    long = [row.name for row in ROWS if row.long]
    assert long == ["periodic-re1600"]
    assert set(long) <= set(rows.names()) and set(long) <= set(rows.names("periodic"))
    assert not any(row.long for row in rows.named()) and not any(row.long for row in rows.named("periodic-re"))
    assert [row.name for row in rows.named("periodic-re1600")] == long


def test_each_row_has_a_name_of_its_own():
    assert len(set(rows.names())) == len(rows.names())


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if not row.long], ids=lambda row: row.name)
def test_periodic_flows_keep_their_bounds(row):
    found = row.compute()
    assert found.ok, found
