"""Diagnostics against ArviZ and closed forms."""

import arviz
import numpy as np
import pytest

import solvers as sv
from solvers.sampling import diagnostics


def autoregression(rho, chains, n, seed=0):
    noise = np.random.default_rng(seed).normal(size=(chains, n))
    x = np.zeros((chains, n))
    x[:, 0] = noise[:, 0] / np.sqrt(1 - rho**2)
    for t in range(1, n):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    return x


@pytest.mark.parametrize("rho", [0.0, 0.7, 0.98, -0.6])
@pytest.mark.parametrize(("chains", "n"), [(4, 400), (2, 37), (1, 103)])
def test_against_arviz(rho, chains, n):
    x = autoregression(rho, chains, n) + 0.2 * np.arange(chains)[:, None]
    x[:, ::7] = np.round(x[:, ::7])  # ties
    ours = [f(x) for f in (diagnostics.ess_bulk, diagnostics.ess_tail, diagnostics.mcse)]
    theirs = [arviz.ess(x, method="bulk"), arviz.ess(x, method="tail"), arviz.mcse(x)]
    np.testing.assert_allclose(ours, np.array(theirs, float), rtol=1e-9)
    if chains > 1:
        np.testing.assert_allclose(diagnostics.r_hat(x), float(arviz.rhat(x)), rtol=1e-12)


def test_many_quantities_are_as_each_alone():
    x = np.stack([autoregression(0.5, 3, 200, seed) for seed in range(6)], axis=-1).reshape(3, 200, 2, 3)
    found = sv.diagnose(x).numbers["x"]
    for name in found._fields:
        one = sv.diagnose(x[..., 1, 2]).numbers["x"]
        np.testing.assert_allclose(getattr(found, name)[1, 2], getattr(one, name), rtol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.5])
def test_effective_sample_size_of_an_autoregression(rho):
    """ess = N (1 - rho) / (1 + rho), and mcse = sd / sqrt(ess)."""
    n = 20_000
    x = autoregression(rho, 4, n, seed=2)
    exact = 4 * n * (1 - rho) / (1 + rho)
    # The window of Geyer's sum is a few correlation times T, so the relative error is about sqrt(2 T / (4 n)), below
    # 3 %; four of them.
    assert diagnostics.ess_mean(x) == pytest.approx(exact, rel=0.12)
    assert diagnostics.mcse(x) == pytest.approx(1 / np.sqrt(1 - rho**2) / np.sqrt(exact), rel=0.06)


def test_chains_that_disagree_are_seen():
    x = autoregression(0.0, 4, 500)
    assert sv.diagnose(x).warnings == ()
    shifted = sv.diagnose(x + np.array([0, 0, 0, 1.0])[:, None])
    assert shifted.worst_r_hat > 1.05 and "the chains disagree" in str(shifted)
    # Equal means and unequal scales: only the folded R-hat sees it.
    assert sv.diagnose(x * np.array([1, 1, 1, 5.0])[:, None]).worst_r_hat > 1.05


def test_what_never_moves_has_no_diagnostics():
    x = autoregression(0.0, 2, 300)
    found = sv.diagnose({"still": np.ones((2, 300)), "moving": x, "lost": np.where(x > 2, np.nan, x)})
    assert np.isnan([found.numbers["still"].r_hat, found.numbers["lost"].ess_bulk]).all()
    assert found.numbers["moving"].r_hat < 1.02
    assert "2 of 3 quantities never change or are not finite" in str(found)


def test_events_and_counts_are_quantities():
    """The mean of an event is its probability; effective sizes are those of ArviZ on zeros and ones."""
    x = autoregression(0.5, 4, 500)
    for told, numbers in ((x > 0.3, (x > 0.3).astype(float)), (np.rint(3 * x).astype(int), np.rint(3 * x))):
        found = sv.diagnose(told).numbers["x"]
        exact = [numbers.mean(), arviz.ess(numbers, method="bulk"), float(arviz.rhat(numbers))]
        np.testing.assert_allclose([found.mean, found.ess_bulk, found.r_hat], exact, rtol=1e-9)
        np.testing.assert_allclose(found.ess_tail, arviz.ess(numbers, method="tail"), rtol=1e-9)
    assert not sv.diagnose(x > 0.3).warnings and np.isnan(sv.diagnose(x > 99.0).numbers["x"].ess_tail)
    assert diagnostics.ess_tail(x > 0.3) == sv.diagnose(x > 0.3).numbers["x"].ess_tail


def test_the_table():
    rng = np.random.default_rng(0)
    text = str(
        sv.diagnose({"mu": rng.normal(size=(2, 500)), "theta": rng.normal(size=(2, 500, 60))}, ("Mind the gap.",))
    )
    lines = text.splitlines()
    assert lines[0].split() == ["mean", "sd", "mcse", "ess_bulk", "ess_tail", "r_hat"]
    assert lines[1].startswith("mu ") and lines[2].startswith("theta[0]")
    assert "... 21 more" in text and "2 chains of 500 draws" in text and text.endswith("! Mind the gap.")


@pytest.mark.parametrize("shape", [(4, 3), (4,), (0, 10), (4, 0)])
def test_too_little_for_diagnostics(shape):
    with pytest.raises(ValueError, match=r"at least 4 draws|must have the axes"):
        sv.diagnose(np.zeros(shape))
