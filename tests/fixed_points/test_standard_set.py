"""The standard set itself: known solutions, and SciPy's answers as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from .standard_set import PROBLEMS


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.solution is not None], ids=lambda p: p.name)
def test_known_solutions_solve(problem):
    # A few roundings of terms of size 100.
    assert np.abs(problem.residual(jnp.asarray(problem.solution))).max() < 1e-14


def test_there_are_23_of_them():
    assert [p.number for p in PROBLEMS] == list(range(1, 24))


# Printed by SciPy's `hybr`; the others have closed-form solutions, or `hybr` stops elsewhere.
ANSWERS = {
    3: [1.098159e-5, 9.106146],
    6: [-0.501367, 1.073650],
    9: [-0.043165, -0.081577],
    13: [-0.570722, -0.681807],
    14: [-0.428303, -0.476596],
}


@pytest.mark.parametrize("number", ANSWERS)
def test_scipy_finds_the_answers_of_the_literature(number):
    problem = PROBLEMS[number - 1]
    found = optimize.root(jax.jit(problem.residual), problem.start, tol=1e-12)
    assert found.success
    np.testing.assert_allclose(found.x[:2], ANSWERS[number], atol=6e-7)


def test_both_forms_of_the_boundary_value_problem_agree():
    """Green's function inverts the differences, so problems 9 and 10 have one solution."""
    answers = [optimize.root(jax.jit(PROBLEMS[n].residual), PROBLEMS[n].start, tol=1e-12).x for n in (8, 9)]
    np.testing.assert_allclose(*answers, atol=1e-12)
