"""Signals have the spectrum that they claim, and the dispersion estimate is what a run shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

EPS = np.finfo(float).eps


def test_the_spectrum_of_a_ricker_wavelet_peaks_where_it_says():
    f, dt, steps = 12.0, 1e-3, 4000
    signal = np.asarray(sv.ricker(f, steps=steps, dt=dt))
    spectrum = np.abs(np.fft.rfft(signal)) * dt
    frequencies = np.fft.rfftfreq(steps, dt)
    assert abs(frequencies[spectrum.argmax()] - f) <= 0.5 / (steps * dt)
    # The transform is 2 / sqrt(pi) f^2 / f0^3 exp(-(f / f0)^2); the wavelet is cut at 1e-8.
    exact = 2 / np.sqrt(np.pi) * frequencies**2 / f**3 * np.exp(-((frequencies / f) ** 2))
    np.testing.assert_allclose(spectrum, exact, atol=1e-8 * exact.max() + 1e-9)


def test_the_delay_is_the_time_of_the_peak():
    signal = sv.ricker(10.0, steps=500, dt=1e-3, delay=0.2)
    assert int(signal.argmax()) == 200 and float(signal[200]) == 1.0
    assert abs(float(sv.ricker(10.0, steps=500, dt=1e-3)[0])) < 1e-8


def test_signals_are_differentiable():
    slope = jax.grad(lambda f: jnp.sum(sv.ricker(f, steps=100, dt=2e-3, delay=0.1) ** 2))(10.0)
    h = 1e-4
    ahead, back = (float(jnp.sum(sv.ricker(10.0 + s, steps=100, dt=2e-3, delay=0.1) ** 2)) for s in (h, -h))
    np.testing.assert_allclose(slope, (ahead - back) / (2 * h), rtol=1e-7)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        sv.ricker(10.0, steps=0, dt=1e-3)


def test_points_per_wavelength_takes_the_worst_of_all():
    assert sv.points_per_wavelength(np.array([1500.0, 3000.0]), (10.0, 25.0), 6.0) == 10.0


@pytest.mark.parametrize("order", [2, 4, 6, 8])
@pytest.mark.parametrize("time_order", [2, 4])
def test_dispersion_is_what_a_run_shows(order, time_order):
    """A plane wave on a periodic line is an eigenvector: its phase turns by the numerical frequency, exactly."""
    points, courant, steps = 8, 0.5, 40
    grid = sv.Grid(4 * points, 1.0)
    k = 2 * np.pi / points
    wave = sv.Wave(grid, 1.0, order=order, time_order=time_order, boundary=sv.Periodic())
    x = grid.axes()[0]
    run = sv.simulate(wave, wave.state(np.cos(k * x)), steps=steps, dt=courant).check()
    amplitude = float(np.dot(wave.pressure(run.final), np.cos(k * x)) / np.dot(np.cos(k * x), np.cos(k * x)))
    error = sv.dispersion(points, order=order, courant=courant, time_order=time_order)
    np.testing.assert_allclose(amplitude, np.cos((1 + error) * k * courant * steps), atol=100 * steps * EPS)


@pytest.mark.parametrize(("arguments", "words"), [((1.9,), "at least 2 points"), ((4.0, 8, 2.0), "not stable")])
def test_what_cannot_run_has_no_dispersion(arguments, words):
    points, *rest = arguments
    with pytest.raises(ValueError, match=words):
        sv.dispersion(points, **dict(zip(("order", "courant"), rest, strict=False)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sv.ricker(0.0, steps=3, dt=0.1), "`peak_frequency` must be positive"),
        (lambda: sv.ricker(1.0, steps=True, dt=0.1), "`steps` must be a whole number, got True"),
        (lambda: sv.dispersion(5.0, order=3), r"`order` must be one of \(2, 4, 6, 8\)"),
        (lambda: sv.dispersion(5.0, time_order=3), "`time_order` 2 or 4"),
    ],
)
def test_what_no_signal_or_scheme_has_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
