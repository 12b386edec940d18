"""Pictures of chains show all chains and quantities, with their names, in the axes given."""

import numpy as np
import pytest
from matplotlib import pyplot

from solvers import plot

DRAWS = {"mu": np.random.default_rng(0).normal(size=(3, 80)), "theta": np.random.default_rng(1).normal(size=(3, 80, 4))}
NAMES = ["mu", "theta[0]", "theta[1]", "theta[2]", "theta[3]"]
TRUTH = {"mu": 0.25, "theta": np.arange(4.0)}


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


def test_traces_have_one_row_per_quantity_and_one_line_per_chain():
    axes = plot.traces(DRAWS, truth=TRUTH)
    assert [ax.get_ylabel() for ax in axes] == NAMES
    assert [ax.get_xlabel() for ax in axes] == [""] * 4 + ["draw"]
    for ax, exact, draws in zip(
        axes, (0.25, 0, 1, 2, 3), (DRAWS["mu"], *np.moveaxis(DRAWS["theta"], 2, 0)), strict=True
    ):
        *chains, line = ax.lines
        np.testing.assert_array_equal([chain.get_ydata() for chain in chains], draws)
        assert list(line.get_ydata()) == [exact, exact]
    assert len(plot.traces(DRAWS, most=2)) == 2


def test_marginals_have_areas_of_one_and_an_outline_per_chain():
    axes = plot.marginals(DRAWS, truth=TRUTH, bins=15)
    assert [ax.get_xlabel() for ax in axes] == NAMES
    for ax in axes:
        outlines = [patch for patch in ax.patches if hasattr(patch, "get_data")]
        assert len(outlines) == 3 and len(ax.patches) == 3 + 15 and len(ax.lines) == 1
        for outline in outlines:
            values, edges, _ = outline.get_data()
            assert np.sum(values * np.diff(edges)) == pytest.approx(1.0, rel=1e-12)
    # Five quantities in two rows of three: the empty place holds no axes.
    assert len(axes[0].figure.axes) == 5


def test_marginals_of_events():
    (ax,) = plot.marginals(DRAWS["mu"] > 0)
    assert ax.get_xlabel() == "x" and len(ax.patches) == 3 + 40


def test_an_autocorrelation_has_a_line_per_quantity_from_one_on():
    _, ax = pyplot.subplots()
    assert plot.autocorrelation(DRAWS, lags=12, ax=ax) is ax
    zero, *lines = ax.lines
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("lag (draws)", "autocorrelation")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == NAMES
    assert set(zero.get_ydata()) == {0.0} and len(lines) == 5
    away = DRAWS["mu"] - DRAWS["mu"].mean(axis=1, keepdims=True)
    exact = np.sum(away[:, 1:] * away[:, :-1]) / np.sum(away**2)
    for line in lines:
        assert line.get_ydata()[0] == 1.0 and len(line.get_ydata()) == 13
    assert lines[0].get_ydata()[1] == pytest.approx(exact, rel=1e-10)


class Empty:
    draws = None


@pytest.mark.parametrize("picture", [plot.traces, plot.marginals, plot.autocorrelation])
def test_bad_input_is_named(picture):
    with pytest.raises(ValueError, match="has no draws, because it has sinks"):
        picture(Empty())
    with pytest.raises(ValueError, match="`most` must be at least 1"):
        picture(DRAWS, most=0)
    with pytest.raises(ValueError, match=r"axes \(chains, draws, ...\), got shape \(5,\)"):
        picture(np.zeros(5))
