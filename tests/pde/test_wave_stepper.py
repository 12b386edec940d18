"""Derivatives of wave runs with the hand-derived adjoint: exact for the discrete scheme, in every mode and strategy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from .oracles import FACES, SIZES, Problem, direction, few, parameters

EPS = np.finfo(float).eps


SLOW = {"channel", "room", "mixed"}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FACES])
def case(request):
    """A problem with its compiled misfit and gradient."""
    problem = Problem(FACES[request.param])
    return problem, parameters(), jax.jit(problem.misfit), jax.jit(jax.grad(problem.misfit))


@pytest.mark.parametrize("name", [n for n in SIZES if n != "density"])
def test_taylor_remainders_fall_at_one_two_three(case, name):
    _, p, misfit, gradient = case
    report = sv.check_gradient(
        misfit, p, direction(p, name, SIZES[name]), gradient=gradient, hessian=True, tolerance=0.05
    )
    report.check()


def test_the_adjoint_is_the_transpose(case):
    problem, p, _, _ = case
    tangent = jax.tree.map(jnp.add, *(direction(p, n, SIZES[n] * 0.5) for n in ("speed", "sources")))
    tangent = jax.tree.map(jnp.add, tangent, direction(p, "receivers", 0.2))
    tangent = jax.tree.map(jnp.add, tangent, direction(p, "signals", 1.0))
    tangent = jax.tree.map(jnp.add, tangent, direction(p, "pressure", 1.0))
    tangent = jax.tree.map(jnp.add, tangent, direction(p, "velocity", 1.0))
    tangent = jax.tree.map(jnp.add, tangent, direction(p, "dt", 0.05))
    assert sv.check_adjoint(problem.record, p, tangent=tangent).check().error < 1e-12


@pytest.mark.parametrize("name", ["sources", "receivers"])
def test_position_gradients_equal_finite_differences(case, name):
    _, p, misfit, gradient = case
    slope = np.asarray(gradient(p)[name])
    # Fourth-order differences: h^4 f''''' / 30 = 1e-14 beside a round-off of eps f / h = 1e-13 of f.
    h = 1e-3
    numeric = np.zeros_like(slope)
    for i in np.ndindex(*slope.shape):
        f = [float(misfit(p | {name: p[name].at[i].add(k * h)})) for k in (-2, -1, 1, 2)]
        numeric[i] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    np.testing.assert_allclose(slope, numeric, atol=1e-8 * np.abs(slope).max(), rtol=0)


@pytest.mark.parametrize("name", ["sources", "receivers"])
def test_position_gradients_on_nodes_and_at_faces(case, name):
    """On a node, on the second node from a face, and on the outermost nodes, where the window is folded."""
    _, p, misfit, gradient = case
    low, high = np.zeros(2), np.array([13.0, 15 * 0.9])
    places = {"sources": [[5.0, 0.9 * 6], [1.0, 0.9 * 14]], "receivers": [[7.0, 0.9 * 3], [12.0, 0.9], [5.3, 0.9 * 15]]}
    p = p | {key: jnp.asarray(value) for key, value in places.items()}
    slope = np.asarray(gradient(p)[name])
    # Third derivatives jump on nodes, so a central difference has errors h^2, h^3, ...: extrapolation for h and h^2
    # leaves h^3 = 1e-12 beside a round-off of 8 eps f / h = 2e-11.
    h = 1e-4
    numeric, inside = np.zeros_like(slope), np.zeros(slope.shape, bool)
    for i in np.ndindex(*slope.shape):
        x = float(p[name][i])
        inside[i] = low[i[1]] + h < x < high[i[1]] - h
        if inside[i]:
            d = []
            for step in (h, h / 2, h / 4):
                f = [float(misfit(p | {name: p[name].at[i].add(s * step)})) for s in (-1, 1)]
                d.append((f[1] - f[0]) / (2 * step))
            numeric[i] = (d[0] - 6 * d[1] + 8 * d[2]) / 3
    assert inside.any() and np.abs(slope[inside]).max() > 1e-6
    scale = max(np.abs(slope).max(), 1e-2 * abs(float(misfit(p))))
    np.testing.assert_allclose(slope[inside], numeric[inside], atol=1e-8 * scale, rtol=0)


# ---- Strategies ----


def gradients(problem, p):
    return jax.jit(jax.value_and_grad(problem.misfit))(p)


def assert_same(a, b, bound):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        scale = float(jnp.max(jnp.abs(y)))
        error = float(jnp.max(jnp.abs(x - y))) / (scale or 1.0)
        assert error < bound, f"{jax.tree_util.keystr(path)}: {error:.1e}"


@pytest.mark.parametrize(
    ("levels", "steps", "every"),
    [
        (2, 97, 1),
        *(
            pytest.param(levels, *run, marks=pytest.mark.slow)
            for levels in (2, 3, 4)
            for run in ((97, 1), (131, 3), (100, 7), (131, 100), (40, 100))
        ),
    ],
)
def test_checkpoints_give_the_gradient_of_store_all(steps, every, levels):
    problem, p = Problem(FACES["sea"], steps=steps, every=every), parameters(steps=steps)
    reference = gradients(problem, p)
    given = gradients(dataclasses.replace(problem, adjoint=sv.Checkpoint(levels)), p)
    assert_same(given, reference, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [2, 4])
def test_checkpoints_give_the_gradient_of_store_all_in_float32(levels):
    problem, p = Problem(FACES["sea"], steps=97), parameters(steps=97, dtype=jnp.float32)
    reference = gradients(problem, p)
    given = gradients(dataclasses.replace(problem, adjoint=sv.Checkpoint(levels)), p)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(given))
    assert_same(given, reference, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("observe", ["all", "sums"])
@pytest.mark.parametrize("every", [1, 3, 70])
def test_every_observer_is_differentiated(observe, every):
    """Functions that close over traced values, accumulators and receivers, with and without checkpoints."""
    problem = Problem(FACES["mixed"], steps=75, every=every, observe=observe)
    p = parameters(steps=75)
    reference = gradients(problem, p)
    given = gradients(dataclasses.replace(problem, adjoint=sv.Checkpoint(3)), p)
    assert_same(given, reference, 1e-12)
    tangent = direction(p, "speed", 0.05)
    slope = jax.jvp(problem.misfit, (p,), (tangent,))[1]
    reverse = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (tangent, reference[1])), strict=True))
    np.testing.assert_allclose(slope, reverse, rtol=1e-11)


@pytest.mark.parametrize("name", few(others=["pressure", "speed", "receivers"]))
def test_observers_pass_the_taylor_test(name):
    p = parameters()
    problem = Problem(FACES["sea"], observe="all", every=3, adjoint=sv.Checkpoint(2))
    sv.check_gradient(problem.misfit, p, direction(p, name, SIZES[name]), hessian=True, tolerance=0.05).check()


# ---- Compositions ----


@pytest.fixture(scope="module")
def short():
    problem = Problem(FACES["sea"], steps=20, adjoint=sv.Checkpoint(2))
    return problem, parameters(steps=20)


@pytest.mark.slow
def test_hessian_vector_products_are_symmetric_and_agree_in_all_modes(short):
    problem, p = short
    rest = {k: v for k, v in p.items() if k not in ("speed", "signals", "sources", "receivers")}
    q = {k: v for k, v in p.items() if k not in rest}

    def f(q):
        return problem.misfit(q | rest)

    v = {k: SIZES[k] * jax.random.normal(jax.random.key(3), x.shape) for k, x in q.items()}
    w = {k: SIZES[k] * jax.random.normal(jax.random.key(4), x.shape) for k, x in q.items()}

    def dot(a, b):
        return float(sum(jnp.vdot(a[k], b[k]) for k in a))

    forward_over_reverse = jax.jit(lambda q, v: jax.jvp(jax.grad(f), (q,), (v,))[1])
    hv, hw = forward_over_reverse(q, v), forward_over_reverse(q, w)
    size = np.sqrt(dot(v, v) * dot(hw, hw))
    assert abs(dot(w, hv) - dot(v, hw)) < 1e-12 * size

    def along(q, v):
        return jax.jvp(f, (q,), (v,))[1]

    reverse_over_forward = jax.jit(jax.grad(along))(q, v)
    reverse_over_reverse = jax.jit(jax.grad(lambda q, v: dot_of(jax.grad(f)(q), v)))(q, v)
    forward_over_forward = float(jax.jvp(lambda q: along(q, w), (q,), (v,))[1])
    assert_same(reverse_over_forward, hv, 1e-11)
    assert_same(reverse_over_reverse, hv, 1e-11)
    assert abs(forward_over_forward - dot(w, hv)) < 1e-12 * size
    h = 1e-4
    g = jax.jit(jax.grad(f))
    # Fourth-order differences of the gradient: h^4 and eps / h are both near 1e-12 of it.
    far = [g(jax.tree.map(lambda a, b, k=k: a + k * h * b, q, v)) for k in (-2, -1, 1, 2)]
    numeric = jax.tree.map(lambda a, b, c, d: (a - 8 * b + 8 * c - d) / (12 * h), *far)
    assert_same(numeric, hv, 1e-9)


def dot_of(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.slow
def test_jacobians_by_columns_and_rows_agree(short):
    problem, p = short

    def traces(depth):
        moved = p["sources"].at[:, 0].add(depth)
        return problem.record(p | {"sources": moved})[0]

    x = jnp.array([0.01, -0.02])
    forward, reverse = jax.jacfwd(traces)(x), jax.jacrev(traces)(x)
    np.testing.assert_allclose(forward, reverse, atol=1e-12 * float(jnp.abs(forward).max()))


@pytest.mark.slow
def test_batches_over_sources_equal_a_loop(short):
    problem, p = short
    shots = jnp.stack([p["sources"], p["sources"] + 0.4, p["sources"] * 0.9])

    def misfit(speed, sources):
        return problem.misfit(p | {"speed": speed, "sources": sources})

    both = jax.value_and_grad(misfit, argnums=(0, 1))
    one = jax.jit(both)
    singles = [one(p["speed"], s) for s in shots]
    looped = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    assert_same(jax.jit(jax.vmap(both, (None, 0)))(p["speed"], shots), looped, 1e-12)
    # The sum over shots, differentiated once: the gradient of a shared speed is the sum of gradients.
    total = jax.jit(jax.grad(lambda c: jax.vmap(misfit, (None, 0))(c, shots).sum()))(p["speed"])
    assert_same(total, looped[1][0].sum(0), 1e-12)
    mapped = jax.jit(lambda c: jax.lax.map(lambda s: both(c, s), shots, batch_size=2))(p["speed"])
    assert_same(mapped, looped, 1e-12)


@pytest.mark.slow
def test_batches_over_everything_equal_a_loop(short):
    problem, p = short
    second = {k: v * 1.01 for k, v in p.items()}
    batch = jax.tree.map(lambda *x: jnp.stack(x), p, second)
    one = jax.jit(jax.value_and_grad(problem.misfit))
    looped = jax.tree.map(lambda *x: jnp.stack(x), one(p), one(second))
    assert_same(jax.jit(jax.vmap(jax.value_and_grad(problem.misfit)))(batch), looped, 1e-12)


@pytest.mark.slow
def test_the_users_own_jit_changes_nothing(short):
    problem, p = short
    assert_same(jax.jit(problem.record)(p), problem.record(p), 64 * EPS)
    assert_same(jax.jit(jax.grad(problem.misfit))(p), jax.grad(problem.misfit)(p), 1e-13)


# ---- The two ways to write receivers ----


@pytest.mark.parametrize("faces", ["mixed", pytest.param("sea", marks=pytest.mark.slow)])
def test_receivers_on_a_line_are_read_and_differentiated_as_any_others(faces):
    """Known positions on one line take a shorter way than traced ones; a bent line takes neither."""
    p = parameters()
    line = np.array([[3.4, 2.0], [3.4, 5.3], [3.4, 9.9]])

    def misfit(speed, receivers):
        return Problem(FACES[faces]).misfit(p | {"speed": speed, "receivers": receivers})

    known = jax.jit(jax.value_and_grad(lambda c: misfit(c, line)))(p["speed"])
    traced = jax.jit(jax.value_and_grad(misfit))(p["speed"], jnp.asarray(line))
    assert_same(known, traced, 1e-12)
    column = np.array([[3.4, 5.0], [6.1, 5.0], [12.0, 5.0]])
    known = jax.jit(jax.value_and_grad(lambda c: misfit(c, column)))(p["speed"])
    traced = jax.jit(jax.value_and_grad(misfit))(p["speed"], jnp.asarray(column))
    assert_same(known, traced, 1e-12)
    single = np.array([[3.4, 5.0]])
    known = jax.jit(jax.value_and_grad(lambda c: misfit(c, single)))(p["speed"])
    traced = jax.jit(jax.value_and_grad(misfit))(p["speed"], jnp.asarray(single))
    assert_same(known, traced, 1e-12)


# ---- One and three dimensions ----


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [1, 3])
def test_taylor_and_dot_product_in_one_and_three_dimensions(ndim):
    """Other axes, other slabs and windows: all that is differentiated at once."""
    shape = (13, 12, 12)[:ndim]
    rng = np.random.default_rng(0)
    boundary = ((sv.Free(), sv.Absorbing(2)), sv.Periodic(), (sv.Rigid(), sv.Absorbing(2)))[:ndim]
    p = {
        "speed": 1 + 0.1 * rng.random(shape),
        "sources": np.array([[5.3, 6.1, 4.7]])[:, :ndim],
        "receivers": np.array([[3.4, 2.2, 7.9], [8.1, 9.4, 3.3]])[:, :ndim],
        "signals": rng.standard_normal((8, 1)),
        "pressure": rng.standard_normal(shape),
    }
    p = {k: jnp.asarray(v) for k, v in p.items()}

    def record(p):
        wave = sv.Wave(sv.Grid(shape, 1.0), p["speed"], order=2, boundary=boundary, sources=p["sources"])
        run = sv.simulate(wave, wave.state(p["pressure"]), steps=8, dt=0.4, inputs=p["signals"],
                          observe=wave.receivers(p["receivers"]), adjoint=sv.StoreAll())  # fmt: skip
        return run.observed, run.final.pressure

    def misfit(p):
        return sum(jnp.sum(x**2) for x in record(p))

    d = {k: SIZES[k] * jax.random.normal(jax.random.key(i), v.shape) for i, (k, v) in enumerate(p.items())}
    sv.check_gradient(jax.jit(misfit), p, d, tolerance=0.05).check()
    assert sv.check_adjoint(record, p, tangent=d).check().error < 1e-12
