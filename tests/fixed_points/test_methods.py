"""What each method is known to take: caps on counts, finite termination on linear problems, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

RATES = jnp.linspace(0, 0.99, 100)


def contraction(x, rates):
    return rates * x + 1.0


def evaluations(method, tolerance, max_steps=1000):
    found = sv.fixed_point(
        contraction, jnp.zeros(100), RATES, method=method, rtol=0.0, atol=tolerance, max_steps=max_steps, stability=0
    ).check()
    np.testing.assert_allclose(found.value, 1 / (1 - RATES), atol=100 * tolerance)
    return int(found.stats.evaluations)


def test_anderson_on_a_slow_contraction():
    """JAXopt needs more than 5000 to 1e-10, the plain iteration 2350; 365 and 359 are known for other safe forms."""
    assert evaluations(sv.Anderson(depth=5), 1e-3) <= 100
    assert evaluations(sv.Anderson(depth=5), 1e-6) <= 220
    assert evaluations(sv.Anderson(depth=5), 1e-10) <= 380


def test_the_plain_iteration_takes_as_many_steps_as_theory_says():
    # The residual after k steps is rates^k; one evaluation more is that at the start.
    steps = next(k for k in range(3000) if np.linalg.norm(np.asarray(RATES) ** k) <= 1e-10)
    assert evaluations(sv.Picard(), 1e-10, 3000) == steps + 1


@pytest.fixture(scope="module")
def linear():
    """A contraction of ten unknowns that is not symmetric, f(x) = M x + b, and its solution."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((10, 10))
    matrix *= 0.9 / np.linalg.norm(matrix, 2)
    b = rng.standard_normal(10)
    return jnp.asarray(matrix), jnp.asarray(b), np.linalg.solve(np.eye(10) - matrix, b)


def affine(x, matrix, b):
    return matrix @ x + b


def steps_of(method, linear):
    matrix, b, solution = linear
    choices = {"rtol": 0.0, "atol": 1e-10, "history": True, "stability": 0}
    found = sv.fixed_point(affine, jnp.zeros(10), matrix, b, method=method, **choices).check()
    np.testing.assert_allclose(found.value, solution, atol=1e-8)
    return int(found.stats.iterations), np.asarray(found.stats.history)


def test_anderson_with_a_full_memory_is_gmres(linear):
    """The residual after k + 1 steps is M times that of GMRES after k."""
    matrix, b, _ = linear
    steps, history = steps_of(sv.Anderson(depth=10), linear)
    assert steps <= 11
    a = np.eye(10) - np.asarray(matrix)
    basis, krylov = [], np.asarray(b)
    for k in range(1, 6):
        basis.append(krylov / np.linalg.norm(krylov))
        krylov = a @ basis[-1]
        space = np.stack(basis, axis=1)
        y = np.linalg.lstsq(a @ space, np.asarray(b), rcond=None)[0]
        rest = np.asarray(matrix) @ (np.asarray(b) - a @ space @ y)
        np.testing.assert_allclose(history[k + 1], np.linalg.norm(rest), rtol=1e-6)


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_broyden_ends_after_twice_the_dimension(kind, linear):
    assert steps_of(sv.Broyden(kind), linear)[0] <= 20


def test_newton_takes_one_step_on_a_linear_problem(linear):
    assert steps_of(sv.Newton(), linear)[0] == 1


def test_delay_mixes_nothing_at_first(linear):
    plain, delayed = (steps_of(m, linear)[1] for m in (sv.Picard(), sv.Anderson(delay=6)))
    np.testing.assert_allclose(delayed[:7], plain[:7], rtol=1e-12)
    assert delayed[9] < 0.9 * plain[9]


def test_regularisation_safeguard_and_damping_reach_the_same_solution(linear):
    for method in (sv.Anderson(regularisation=1e-3), sv.Anderson(safeguard=1.0), sv.Anderson(damping=0.5)):
        steps_of(method, linear)


def test_the_safeguard_takes_back_what_grows():
    """Without it the mixed steps on arctan diverge from far away; with it the residual falls below the plain one."""

    def f(x):
        return x - jnp.arctan(3 * x)

    found = sv.fixed_point(
        f, jnp.array([5.0, -0.5]), method=sv.Anderson(depth=2, safeguard=1.0), rtol=0.0, atol=1e-9, stability=0
    )
    np.testing.assert_allclose(found.value, 0, atol=1e-9)


def test_newton_krylov_converges_quadratically():
    """Where the linear equations are solved well, the residual is squared at each step."""

    def F(x):
        return jnp.exp(x) - jnp.linspace(1.0, 3.0, 50)

    found = sv.root(F, jnp.zeros(50), rtol=1e-14, atol=0.0, history=True).check()
    history = np.asarray(found.stats.history)
    history = history[np.isfinite(history)]
    np.testing.assert_allclose(found.value, np.log(np.linspace(1.0, 3.0, 50)), atol=1e-12)
    # The last but one step: from r to at most a few r^2, or round-off.
    assert history[-1] < max(5 * history[-2] ** 1.8, 1e-13)


def test_pseudo_transient_follows_time_to_the_stable_state():
    """x' = x - x^3 from 0.1 leads to 1; a plain Newton step from there goes to the unstable state 0."""
    found = sv.root(lambda x: x**3 - x, jnp.full(2, 0.1), method=sv.PseudoTransient(0.5), rtol=1e-10)
    np.testing.assert_allclose(found.check().value, 1, rtol=1e-9)
    newton = sv.root(lambda x: x**3 - x, jnp.full(2, 0.1), method=sv.Newton(), rtol=1e-10).check()
    np.testing.assert_allclose(newton.value, 0, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sv.Picard(0.0),
        lambda: sv.Picard(1.5),
        lambda: sv.Anderson(depth=0),
        lambda: sv.Anderson(condition_limit=0.5),
        lambda: sv.Anderson(regularisation=-1.0),
        lambda: sv.Anderson(safeguard=0.5),
        lambda: sv.Anderson(delay=-1),
        lambda: sv.Broyden("worst"),
        lambda: sv.Broyden(memory=0),
        lambda: sv.PseudoTransient(0.0),
    ],
)
def test_wrong_options_are_told(make):
    with pytest.raises(ValueError):
        make()


def test_newton_refuses_what_cannot_be_written_out():
    with pytest.raises(ValueError, match="NewtonKrylov"):
        sv.root(jnp.sin, jnp.ones(10_001), method=sv.Newton())


def test_the_derivative_does_not_depend_on_the_method(linear):
    matrix, b, _ = linear
    expected = np.linalg.solve((np.eye(10) - np.asarray(matrix)).T, np.ones(10))
    for method in (sv.Picard(0.5), sv.Broyden()):
        slope = jax.grad(
            lambda b, m=method: jnp.sum(sv.fixed_point(affine, jnp.zeros(10), matrix, b, method=m, stability=0).value)
        )(b)
        np.testing.assert_allclose(slope, expected, rtol=1e-10)
