"""Exact solutions of the wave equation with a point source, u_tt = c^2 (lap u + s(t) delta(x - x_s))."""

import numpy as np


def green_2d(signal: np.ndarray, dt: float, distance: float, speed: float, periods: int = 4) -> np.ndarray:
    """Pressure at a distance from a line source in a homogeneous medium, sampled at 0, dt, 2 dt, ...

    In frequency, with time as exp(i omega t), U = S (-i / 4) H0^(2)(omega r / c). The signal is padded with zeros to
    `periods` times its length, because the discrete transform is periodic and waves in two dimensions have a tail.

    Args:
        signal: s at the sample times.
        dt: time between samples, s.
        distance: r > 0, m.
        speed: c, m/s.
        periods: length of the transform in lengths of the signal.

    Reference:
        Morse and Ingard, Theoretical Acoustics (1968), section 7.3.
    """
    from scipy.special import hankel2

    n = periods * len(signal)
    omega = 2 * np.pi * np.fft.rfftfreq(n, dt)
    spectrum = np.fft.rfft(np.asarray(signal, np.float64), n)
    answer = np.zeros_like(spectrum)
    answer[1:] = spectrum[1:] * -0.25j * hankel2(0, omega[1:] * distance / speed)
    return np.fft.irfft(answer, n)[: len(signal)]


def ricker_values(time: np.ndarray, peak_frequency: float, delay: float) -> np.ndarray:
    """Ricker wavelet at any times."""
    a = (np.pi * peak_frequency * (time - delay)) ** 2
    return (1 - 2 * a) * np.exp(-a)
