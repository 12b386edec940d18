"""Fourier modes: exact on what they hold, transposes of each other, free of aliasing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.fourier import DEALIASING, Modes, fast_size, resample

SHAPES = [(16,), (9, 14), (5, 8, 7)]
TINY = 1e-13  # a hundred roundings of numbers of size one


def box(shape):
    """A grid with another period along each axis and an origin away from zero."""
    return sv.Grid(shape, [0.3, 1.1, 0.7][: len(shape)], [2.0, -1.0, 0.5][: len(shape)])


def noise(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def random_modes(modes, lead=(), seed=0):
    return modes.to_modes(noise((*lead, *modes.grid.shape), seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_of_a_wave_are_exact(shape):
    modes = Modes(box(shape), "none")
    x = np.meshgrid(*modes.grid.axes(), indexing="ij")
    k = [2 * np.pi * m / p for m, p in zip(modes.cut, modes.period, strict=True)]
    phase = sum(a * b for a, b in zip(k, x, strict=True))
    wave = modes.to_modes(np.cos(phase))
    for axis in range(len(shape)):
        for order in (1, 2, 3):
            exact = k[axis] ** order * np.cos(phase + order * np.pi / 2)
            ours = modes.to_field(modes.derivative(wave, axis, order))
            np.testing.assert_allclose(ours, exact, atol=TINY * k[axis] ** order)


@pytest.mark.parametrize(("shape", "real"), [((16,), True), ((9, 14), True), ((9, 14), False), ((5, 8, 7), True)])
def test_transforms_invert_each_other_and_keep_the_mean_square(shape, real):
    modes = Modes(box(shape), real=real)
    noisy = noise(shape) + (0 if real else 1j * noise(shape, 1))
    kept = modes.to_modes(noisy)
    assert kept.shape == modes.shape
    field = modes.to_field(kept)
    np.testing.assert_allclose(modes.to_modes(field), kept, atol=TINY)
    np.testing.assert_allclose(modes.inner(kept, kept), jnp.mean(jnp.abs(field) ** 2), rtol=TINY)
    other = modes.to_modes(noise(shape, 2) + (0 if real else 1j))
    expected = jnp.mean((jnp.conj(field) * modes.to_field(other)).real)
    np.testing.assert_allclose(modes.inner(kept, other), expected, atol=TINY)


@pytest.mark.parametrize("dealias", DEALIASING)
def test_products_within_the_degree_are_free_of_aliasing(dealias):
    """Against the same product formed on a grid so fine that nothing can fold back."""
    shape = (12, 15)
    degree = DEALIASING[dealias][0]
    modes = Modes(box(shape), dealias)
    fine_shape = [4 * n for n in shape]
    fine = Modes(sv.Grid(fine_shape, [p / n for p, n in zip(modes.period, fine_shape, strict=True)]), "none")
    given = random_modes(modes)
    for power in (degree, degree + 1):
        ours = modes.from_points(modes.to_points(given) ** power)
        exact = fine.convert(fine.to_modes(fine.to_field(modes.convert(given, fine)) ** power), modes)
        same = bool(jnp.max(jnp.abs(ours - exact)) < TINY)
        # Too high a power folds back, except where padding was rounded up to a fast size.
        assert same if power <= degree else (not same or dealias in ("3/2", "2"))


@pytest.mark.parametrize("shape", [(9, 14), (5, 8, 7)])
def test_projection_takes_the_divergence_and_nothing_else(shape):
    modes = Modes(box(shape))
    field = random_modes(modes, (len(shape),))
    free = modes.project(field)
    size = float(jnp.max(jnp.abs(field))) * max(float(jnp.max(k)) for k in modes.wavenumbers())
    assert jnp.max(jnp.abs(modes.divergence(free))) < TINY * size
    np.testing.assert_allclose(modes.project(free), free, atol=TINY)
    # What was taken is a gradient: orthogonal to every field without divergence.
    assert abs(modes.inner(field - free, free)) < TINY
    mean = (slice(None), *[0] * len(shape))
    np.testing.assert_array_equal(free[mean], field[mean])


def test_the_inverse_laplacian_solves_the_poisson_equation():
    modes = Modes(box((12, 15)))
    right = random_modes(modes)
    u = modes.inverse_laplacian(right)
    back = modes.derivative(u, 0, 2) + modes.derivative(u, 1, 2)
    np.testing.assert_allclose(back, right.at[0, 0].set(0), atol=TINY)
    assert u[0, 0] == 0


def test_the_spectrum_holds_all_of_the_density_in_the_right_shell():
    modes = Modes(sv.Grid((24, 16), (1.0, 1.0)))
    density = jnp.abs(random_modes(modes)) ** 2
    k, e = modes.spectrum(density)
    np.testing.assert_allclose(jnp.sum(e) * k[1], modes.inner(density**0.5 + 0j, density**0.5 + 0j), rtol=TINY)
    x, y = np.meshgrid(*modes.grid.axes(), indexing="ij")
    # Wavenumbers 3 and 2 periods: in units of the longer side (24) |k| = (9 + (2 * 1.5)^2)^(1/2) = 4.24.
    one = modes.to_modes(np.cos(2 * np.pi * (3 * x / 24 + 2 * y / 16)))
    _, e = modes.spectrum(jnp.abs(one) ** 2)
    assert int(jnp.argmax(e)) == 4
    np.testing.assert_allclose(e[4] * k[1], 0.5, rtol=TINY)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transforms_are_transposes_of_each_other(shape):
    modes = Modes(box(shape), "3/2")
    sv.check_adjoint(modes.to_points, random_modes(modes)).check()
    sv.check_adjoint(modes.from_points, noise(modes.points)).check()


@pytest.mark.parametrize(("shape", "dealias"), [((16,), "2/3"), ((9, 14), "3/2"), ((5, 8, 7), "none")])
def test_two_fields_by_one_complex_transform(shape, dealias):
    modes = Modes(box(shape), dealias)
    # Coefficients that belong to no real field where both k and -k are stored: left out, as by the real transform.
    a, b = random_modes(modes) + 0.3 + 0.1j, random_modes(modes, seed=1)
    paired = modes.to_points_paired(a, b)
    np.testing.assert_allclose(paired.real, modes.to_points(a), atol=TINY)
    np.testing.assert_allclose(paired.imag, modes.to_points(b), atol=TINY)
    f, g = noise(modes.points), noise(modes.points, 1)
    for ours, alone in zip(modes.from_points_paired(f + 1j * g), (f, g), strict=True):
        np.testing.assert_allclose(ours, modes.from_points(alone), atol=TINY)
    sv.check_adjoint(lambda pair: modes.to_points_paired(*pair), (a, b)).check()
    sv.check_adjoint(modes.from_points_paired, f + 1j * g).check()


def test_their_gradient_is_that_of_jaxs_own_operations():
    shape = (9, 14)
    modes = Modes(box(shape))
    weights = noise(modes.grid.shape, 3)
    plain = jnp.zeros((*shape[:-1], shape[-1] // 2 + 1), complex)

    def by_jax(c):
        index = [np.where(m < 0, m + n, m).ravel() for m, n in zip(modes.indices(), shape, strict=True)]
        return jnp.sum(weights * jnp.fft.irfftn(plain.at[np.ix_(*index)].set(c), s=shape, norm="forward") ** 2)

    c = random_modes(modes)
    ours = jax.grad(lambda c: jnp.sum(weights * modes.to_field(c) ** 2))(c)
    np.testing.assert_allclose(ours, jax.grad(by_jax)(c), atol=1e-11)


def test_the_transforms_work_under_vmap_and_twice_differentiated():
    modes = Modes(box((8, 10)))
    c = random_modes(modes, (3,))
    np.testing.assert_allclose(jax.vmap(modes.to_field)(c), modes.to_field(c), atol=TINY)
    f = noise((8, 10))
    hessian = jax.hessian(lambda f: modes.inner(modes.to_modes(f), modes.to_modes(f)))(f).reshape(80, 80)
    # mean(f P f) with P the projection onto the kept modes: H = 2 P / 80, and P P = P.
    np.testing.assert_allclose(hessian @ hessian * 40, hessian, atol=TINY)


def test_resampling_is_exact_for_what_both_grids_hold():
    coarse = sv.Grid((10, 9), (0.2, 0.3))

    def field(n, m):
        x, y = np.meshgrid(np.arange(n) / n, np.arange(m) / m, indexing="ij")
        return 1 + np.sin(2 * np.pi * (3 * x - 2 * y)) + np.cos(2 * np.pi * 4 * y)

    np.testing.assert_allclose(resample(field(10, 9), coarse, (16, 27)), field(16, 27), atol=TINY)
    fine = sv.Grid((16, 27), (0.125, 0.1))
    np.testing.assert_allclose(resample(field(16, 27), fine, (10, 9)), field(10, 9), atol=TINY)


def test_single_precision_stays_single():
    modes = Modes(box((12, 15)))
    c = modes.to_modes(noise((12, 15)).astype(jnp.float32))
    v = jnp.stack([c, c])
    made = (c, modes.to_field(c), modes.derivative(c, 0), modes.inverse_laplacian(c), modes.project(v))
    assert {x.dtype for x in made} == {jnp.dtype(jnp.complex64), jnp.dtype(jnp.float32)}
    k, e = modes.spectrum(jnp.abs(c) ** 2)
    assert modes.inner(c, c).dtype == k.dtype == e.dtype == jnp.float32
    assert (
        jax.grad(lambda f: modes.inner(modes.to_modes(f), c))(noise((12, 15)).astype(jnp.float32)).dtype == jnp.float32
    )


def test_sizes_for_fast_transforms():
    assert [fast_size(n) for n in (1, 7, 13, 127, 193)] == [2, 8, 16, 128, 200]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Modes(box((16,)), "4/5"), "`dealias` must be one of"),
        (lambda: Modes(box((16, 3))), "axis 1 has 3"),
        (lambda: Modes(box((8,))).to_modes(noise((9,))), "must have the last axes"),
        (lambda: Modes(box((8,))).to_modes(noise((8,)) + 0j), "real floating"),
        (lambda: Modes(box((8,))).to_field(noise((3,))), "Coefficients must be complex"),
        (lambda: Modes(box((8,))).convert(noise((3,)) + 0j, Modes(sv.Grid(8, 1.0))), "one box"),
        (lambda: resample(np.full(8, np.nan), box((8,)), (4,)), "must be finite"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(ValueError, match=says):
        make()
