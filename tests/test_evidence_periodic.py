"""The rows of periodic flow in the table of `solvers validate`."""

import numpy as np
import pytest

from solvers.evidence import rows
from solvers.evidence.periodic import ROWS, peak_of


def test_a_row_that_takes_minutes_runs_only_by_its_full_name():
    long = [row.name for row in ROWS if row.long]
    assert long == ["periodic-re1600", "periodic-re1600-fine"]
    assert set(long) <= set(rows.names()) and set(long) <= set(rows.names("periodic"))
    assert not any(row.long for row in rows.named()) and not any(row.long for row in rows.named("periodic-re"))
    assert [row.name for row in rows.named("periodic-re1600")] == long[:1]


def test_a_row_that_needs_a_gpu_is_left_out_without_one(monkeypatch, capsys):
    monkeypatch.setattr(rows, "_has_gpu", lambda: False)
    assert rows.validate("periodic-re1600-fine")
    assert "Left out, since no GPU is at hand: periodic-re1600-fine." in capsys.readouterr().out


def test_the_peak_of_the_dissipation_and_its_time_are_both_compared():
    times = np.arange(0.0, 10.0, 0.09)
    for height, place, error in ((0.01286, 8.97, 0.0), (0.01286 * 1.05, 8.97, 0.05), (0.01286, 8.97 * 0.98, 0.02)):
        found = peak_of(height - 1e-3 * (times - place) ** 2, times, 0.08)
        np.testing.assert_allclose((found.ours, found.error), (height, error), rtol=1e-9, atol=1e-9)


def test_each_row_has_a_name_of_its_own():
    assert len(set(rows.names())) == len(rows.names())


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if not row.long], ids=lambda row: row.name)
def test_periodic_flows_keep_their_bounds(row):
    found = row.compute()
    assert found.ok, found
