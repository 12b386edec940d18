"""Pictures of generation: arrows that point to the denoised mean, lines and dots at their places, images in rows."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot

from solvers import plot

RANDOM = np.random.default_rng(0)
BOX = ((-2.0, 2.0), (-1.0, 1.0))


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


def test_arrows_point_to_the_denoised_mean():
    """For N(0, 1) the mean given x is x / (1 + sigma^2): short arrows are true to scale, long ones end at the gap."""
    ax = plot.vector_field(lambda x, sigma: -x / (1 + sigma**2), 0.5, BOX, nodes=8)
    (arrows,) = ax.collections
    x, moves = np.asarray(arrows.XY), np.stack([arrows.U, arrows.V], axis=1)
    assert len(x) == 8 * 4 and ax.get_xlim() == BOX[0] and ax.get_ylim() == BOX[1] and ax.get_aspect() == 1.0
    true = -x * 0.25 / 1.25
    length = np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(moves, true / np.sqrt(1 + (length / 0.5) ** 2)[:, None], rtol=1e-6)
    np.testing.assert_allclose(arrows.get_array(), length / 0.5, rtol=1e-6)
    assert np.linalg.norm(moves, axis=1).max() < 0.5
    ax.figure.canvas.draw()


def test_points_and_their_colours():
    x = RANDOM.normal(size=(50, 2))
    _, given = pyplot.subplots()
    ax = plot.points(jnp.asarray(x), ax=given, values=x[:, 0], limits=BOX)
    assert ax is given and ax.get_xlim() == BOX[0]
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), x)
    np.testing.assert_array_equal(ax.collections[0].get_array(), x[:, 0])
    free = plot.points(np.array([[0.0, 0.0], [1.0, 3.0], [np.nan, 1.0]]))
    (left, right), (bottom, top) = free.get_xlim(), free.get_ylim()
    assert left < 0 < 1 < right and bottom < 0 < 3 < top
    free.figure.canvas.draw()


def test_trajectories_end_where_the_samples_are():
    path = np.cumsum(RANDOM.normal(size=(5, 9, 2)), axis=1)
    ax = plot.trajectories(path, values=np.arange(5))
    lines, ends = ax.collections
    segments = np.asarray(lines.get_segments()).reshape(5, 8, 2, 2)
    np.testing.assert_array_equal(segments[:, :, 0], path[:, :-1])
    np.testing.assert_array_equal(segments[:, -1, 1], path[:, -1])
    np.testing.assert_array_equal(ends.get_offsets(), path[:, -1])
    colours = lines.get_colors().reshape(5, 8, 4)
    assert np.all(np.diff(colours[..., 3], axis=1) > 0) and np.all(np.ptp(colours[..., :3], axis=1) == 0)
    assert len(np.unique(colours[:, 0, :3], axis=0)) == 5
    assert len(plot.trajectories(RANDOM.normal(size=(500, 2, 2))).collections[0].get_segments()) == 400
    ax.figure.canvas.draw()


def test_images_stand_in_rows_on_one_scale():
    x = RANDOM.normal(size=(5, 4, 3))
    ax = plot.images(jnp.asarray(x), columns=3)
    page = ax.images[0].get_array()
    assert page.shape == (2 * 5 + 1, 3 * 4 + 1)
    shown = (x - x.min()) / np.ptp(x)
    np.testing.assert_allclose(page[1:5, 1:4], shown[0])
    np.testing.assert_allclose(page[6:10, 5:8], shown[4])
    assert np.all(np.ma.getmaskarray(page)[:, ::4]) and np.all(np.ma.getmaskarray(page)[6:, 9:])
    assert plot.images(np.zeros((9, 2, 2)), limits=(-1, 1)).images[0].get_array().shape == (10, 10)
    colour = plot.images(np.zeros((2, 3, 4, 4)) + np.arange(3)[:, None, None], limits=(0, 2)).images[0].get_array()
    np.testing.assert_allclose(colour[2, 2], [0.0, 0.5, 1.0])
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.vector_field(lambda x, s: x, 1.0, ((1, 0), (0, 1))), "`limits`"),
        (lambda: plot.vector_field(lambda x, s: x, 1.0, BOX, nodes=1), "`nodes`"),
        (lambda: plot.vector_field(lambda x, s: x[:1], 1.0, BOX, nodes=2), "two numbers"),
        (lambda: plot.points(np.ones((4, 3))), r"shape \(samples, 2\)"),
        (lambda: plot.points(np.ones((4, 2)), values=np.ones(3)), "each of the 4 samples"),
        (lambda: plot.trajectories(np.ones((4, 2))), "samples, times, 2"),
        (lambda: plot.trajectories(np.ones((4, 1, 2))), "at least two times"),
        (lambda: plot.images(np.ones((4, 4))), "images, rows, columns"),
        (lambda: plot.images(np.ones((4, 2, 4, 4))), "1 or 3 channels"),
        (lambda: plot.images(np.ones((4, 4, 4)), columns=0), "`columns`"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
