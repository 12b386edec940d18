"""Born data are first-order differences of runs; the Gauss-Newton operator is J^T J."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from .oracles import FACES, Problem, direction, parameters


@pytest.fixture(scope="module")
def recording():
    p = parameters(steps=30)
    problem = Problem(FACES["sea"], steps=30, adjoint=sv.Checkpoint())

    def record(speed):
        return problem.record(p | {"speed": speed})[0]

    return record, p["speed"], direction(p, "speed", 0.05)["speed"]


def test_born_data_are_what_differences_tend_to(recording):
    record, speed, d = recording
    data, scattered = sv.born(record, speed, d)
    # Another program, so another order of operations: round-off of 30 steps.
    np.testing.assert_allclose(data, record(speed), atol=30 * np.finfo(float).eps * float(jnp.abs(data).max()))
    h = 1e-3
    run = jax.jit(record)
    numeric = (run(speed - 2 * h * d) - 8 * run(speed - h * d) + 8 * run(speed + h * d) - run(speed + 2 * h * d)) / (
        12 * h
    )
    # h^4 d^5 / 30 and eps / h: 1e-12 of the data.
    np.testing.assert_allclose(scattered, numeric, atol=1e-11 * float(jnp.abs(data).max()))


def test_gauss_newton_is_symmetric_and_positive(recording):
    record, speed, d = recording
    e = jax.random.normal(jax.random.key(8), d.shape)
    operator = jax.jit(lambda v: sv.gauss_newton(record, speed, v))
    hd, he = operator(d), operator(e)
    scale = float(jnp.linalg.norm(d) * jnp.linalg.norm(he))
    assert abs(float(jnp.vdot(e, hd) - jnp.vdot(d, he))) < 1e-12 * scale
    scattered = sv.born(record, speed, d)[1]
    np.testing.assert_allclose(jnp.vdot(d, hd), jnp.vdot(scattered, scattered), rtol=1e-12)


@pytest.mark.slow
def test_the_weight_stands_between(recording):
    record, speed, d = recording
    mask = jnp.arange(30)[:, None] > 12
    weighted = sv.gauss_newton(record, speed, d, weight=lambda r: 3.0 * mask * r)
    scattered = sv.born(record, speed, d)[1]
    np.testing.assert_allclose(jnp.vdot(d, weighted), 3 * jnp.sum(mask * scattered**2), rtol=1e-12)


@pytest.mark.slow
def test_gauss_newton_is_the_hessian_of_a_perfect_fit(recording):
    record, speed, d = recording
    recorded = record(speed)

    def misfit(c):
        return 0.5 * jnp.sum((record(c) - recorded) ** 2)

    hessian = jax.jvp(jax.grad(misfit), (speed,), (d,))[1]
    operator = sv.gauss_newton(record, speed, d)
    np.testing.assert_allclose(operator, hessian, atol=1e-12 * float(jnp.abs(hessian).max()))
