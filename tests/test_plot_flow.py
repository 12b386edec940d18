"""Pictures of periodic flows: x to the right and y upwards, slopes beside spectra, no picture of nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image, ImageSequence

from solvers import plot
from solvers.core.grid import Grid

GRID = Grid((6, 4), (0.5, 1.0), (1.0, -2.0))
FIELD = np.random.default_rng(0).normal(size=(6, 4))


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


def test_a_box_shows_x_to_the_right_and_y_upwards():
    ax = plot.box(jnp.asarray(FIELD, jnp.float32), GRID, label="scalar", clip=100)
    (image,) = ax.images
    # Rows of the picture are y, from below; pixels are centred on the nodes.
    np.testing.assert_allclose(image.get_array(), FIELD.T, rtol=1e-6)
    assert image.origin == "lower" and image.get_extent() == [0.75, 3.75, -2.5, 1.5]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("x", "y", 1.0)
    low, high = image.get_clim()
    assert low == -high and np.isclose(high, np.abs(FIELD).max())
    assert [a.get_ylabel() for a in ax.figure.findobj(lambda a: hasattr(a, "_colorbar"))] == ["scalar"]
    ax.figure.canvas.draw()


def test_of_a_volume_a_slice_is_shown():
    grid, volume = Grid((3, 4, 5), 1.0), np.arange(60.0).reshape(3, 4, 5)
    np.testing.assert_array_equal(plot.box(volume, grid).images[0].get_array(), volume[..., 2].T)
    np.testing.assert_array_equal(plot.box(volume, grid, index=4).images[0].get_array(), volume[..., 4].T)


def test_a_spectrum_stands_beside_straight_lines_of_its_slopes():
    k = np.arange(30.0)
    energy = np.where(k > 0, np.maximum(k, 1) ** -3.0, 5.0)
    _, given = pyplot.subplots()
    ax = plot.spectrum(k, energy, ax=given, slopes=((-3, "a"), (-5 / 3, "b")), label="t = 1")
    assert ax is given and ax.get_xscale() == ax.get_yscale() == "log"
    line, *slopes = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), k[1:])
    for drawn, slope in zip(slopes, (-3, -5 / 3), strict=True):
        x, y = drawn.get_data()
        np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), slope, rtol=1e-10)
        assert np.all(y >= 2.99 * np.interp(x, k[1:], energy[1:]))
    assert [t.get_text() for t in ax.texts] == ["a", "b"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["t = 1"]
    assert not plot.spectrum(k, energy, slopes=()).texts


def test_time_goes_upwards_in_a_space_time_diagram():
    fields = np.random.default_rng(1).normal(size=(3, 4))
    ax = plot.space_time(fields, [0.0, 0.5, 1.0], Grid(4, 2.0, 1.0))
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), fields)
    assert image.origin == "lower" and image.get_extent() == [0.0, 8.0, -0.25, 1.25]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "time")


def test_an_animation_has_its_frames_in_one_scale(tmp_path):
    path = plot.animate_box([0 * FIELD, FIELD], GRID, tmp_path / "new" / "flow.gif", times=[0.0, 0.5], dpi=40)
    with Image.open(path) as picture:
        frames = [np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(picture)]
    colour = [np.mean(np.ptp(frame[:, : frame.shape[1] // 2], axis=2)) for frame in frames]
    assert len(frames) == 2 and colour[1] > 4 * colour[0]


def test_a_hole_in_a_field_stays_blank():
    image = plot.box(np.where(FIELD > 0, FIELD, np.nan), GRID).images[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), (FIELD <= 0).T)


NOTHING = np.full((6, 4), np.nan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: plot.box(FIELD.T, GRID), "must have the shape of a grid"),
        (lambda path: plot.box(FIELD + 0j, GRID), "must hold real numbers"),
        (lambda path: plot.box(NOTHING, GRID), "`field` has no finite value"),
        (lambda path: plot.box(np.ones((2, 2, 2)), Grid((2, 2, 2), 1.0), index=2), "`index`"),
        (lambda path: plot.spectrum(np.arange(3.0), np.ones(4)), "must have one shape"),
        (lambda path: plot.spectrum(np.arange(3.0), np.zeros(3)), "no positive value"),
        (lambda path: plot.spectrum(np.arange(3.0), np.array([0.0, np.nan, 1.0])), "`energy` must be finite"),
        (lambda path: plot.space_time(FIELD, np.arange(4.0), Grid(6, 1.0)), "`fields` must have the shape"),
        (lambda path: plot.space_time(NOTHING, np.arange(6.0), Grid(4, 1.0)), "`fields` has no finite value"),
        (lambda path: plot.animate_box([], GRID, path / "a.gif"), "There must be frames"),
        (lambda path: plot.animate_box([FIELD], GRID, path / "a.gif", times=[0.0, 1.0]), "one of the `times` for each"),
        (lambda path: plot.animate_box([FIELD], GRID, path / "a.mp4"), "must end in .gif"),
        (lambda path: plot.animate_box([NOTHING], GRID, path / "a.gif"), "`fields` has no finite value"),
    ],
)
def test_bad_input_is_named(call, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        call(tmp_path)
