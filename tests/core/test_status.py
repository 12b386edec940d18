"""Codes that may be stored, and what they say of success."""

import pytest

import solvers as sv


def test_codes_are_stable():
    names = "OK NONFINITE CONVERGED MAX_STEPS STAGNATED DIVERGED LINEAR_FAILED UNSTABLE".split()
    assert [(s.name, int(s)) for s in sv.Status] == [(name, code) for code, name in enumerate(names)]


def test_only_success_is_ok():
    assert [s for s in sv.Status if s.ok] == [sv.Status.OK, sv.Status.CONVERGED]


def test_a_solver_error_is_a_runtime_error():
    with pytest.raises(RuntimeError, match="numbers"):
        raise sv.SolverError("numbers")
