"""Pictures show the right numbers at the right places, in units and symmetric colours, in the axes given."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from PIL import Image, ImageSequence

from solvers import plot
from solvers.core.grid import Grid
from solvers.plot import paper

GRID = Grid((20, 30), (10.0, 20.0), (5.0, 100.0))
RANDOM = np.random.default_rng(0)
FIELD = RANDOM.normal(size=(20, 30))
MODEL = 1500.0 + 10.0 * np.arange(20)[:, None] + np.zeros((20, 30))
VOLUME = Grid((6, 7, 8), 10.0)


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


def bars(figure):
    return [ax for ax in figure.findobj(lambda a: hasattr(a, "_colorbar"))]


# ---- snapshot ----


@pytest.mark.parametrize("field", [FIELD, jnp.asarray(FIELD, jnp.float32), jnp.asarray(FIELD, jnp.bfloat16)])
def test_a_snapshot_lies_where_the_grid_lies(field):
    ax = plot.snapshot(field, GRID, clip=100)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), np.asarray(field, np.float64))
    # Pixels are centred on nodes, and depth points downwards.
    assert image.get_extent() == [90.0, 690.0, 200.0, 0.0]
    assert ax.get_ylim() == (200.0, 0.0)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("distance (m)", "depth (m)", 1.0)
    assert [b.get_ylabel() for b in bars(ax.figure)] == ["pressure"]
    ax.figure.canvas.draw()


def test_colours_are_symmetric_and_outliers_are_clipped():
    field = FIELD.copy()
    field[3, 4] = 500.0
    low, high = plot.snapshot(field, GRID, clip=99).images[0].get_clim()
    assert low == -high and high < 10
    assert plot.snapshot(field, GRID, clip=100).images[0].get_clim() == (-500.0, 500.0)


def test_a_small_wave_in_a_large_quiet_field_is_not_clipped_away():
    field = np.full((20, 30), 1e-12)
    field[10, 12:15] = [1.0, -2.0, 1.0]
    assert plot.snapshot(field, GRID).images[0].get_clim()[1] > 1.9


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_field_without_a_scale_is_drawn(value):
    ax = plot.snapshot(np.full((20, 30), value), GRID, MODEL)
    ax.figure.canvas.draw()
    assert ax.images[1].get_clim() == (-1.0, 1.0)


def test_the_colours_are_nothing_at_zero_and_red_above():
    colours = paper.signed_colours()
    assert colours(0.5)[3] < 0.02 and colours(0.0)[3] > 0.8
    red, blue = colours(0.9), colours(0.1)
    assert red[0] > red[2] and blue[2] > blue[0]


def test_the_model_lies_in_grey_below():
    ax = plot.snapshot(FIELD, GRID, MODEL)
    below, above = ax.images
    assert below.get_cmap().name == "gray" and np.array_equal(below.get_array(), MODEL)
    assert below.get_extent() == above.get_extent()
    # Where the model is slowest it is still lighter than half grey.
    assert to_rgb(below.to_rgba(np.array([[1500.0]]))[0, 0, :3])[0] > 0.5


def test_a_uniform_model_is_drawn():
    plot.snapshot(FIELD, GRID, np.full((20, 30), 1500.0)).figure.canvas.draw()


def test_large_pictures_are_in_kilometres():
    ax = plot.snapshot(FIELD, Grid((20, 30), 200.0))
    assert (ax.get_xlabel(), ax.get_xlim()) == ("distance (km)", (-0.1, 5.9))
    assert plot.snapshot(FIELD, Grid((20, 30), 200.0), unit="mm").get_xlabel() == "distance (mm)"


def test_the_users_axes_are_used():
    figure, axes = pyplot.subplots(1, 2)
    assert plot.snapshot(FIELD, GRID, ax=axes[1], label="pressure (Pa)") is axes[1]
    assert not axes[0].images and pyplot.get_fignums() == [figure.number]


def test_a_slender_grid_is_stretched():
    assert plot.snapshot(np.ones((3, 100)), Grid((3, 100), 1.0)).get_aspect() == "auto"


def test_one_axis_gives_a_line_to_its_peak():
    grid = Grid(50, 2.0, 10.0)
    values = np.zeros(50)
    values[7] = -3.0
    ax = plot.snapshot(values, grid, np.full(50, 1500.0))
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), grid.axes()[0])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
    assert ax.get_ylim()[0] < -3.0 and ax.get_ylim()[1] == -ax.get_ylim()[0]
    assert ax.get_xlabel() == "distance (m)"


@pytest.mark.parametrize(
    ("axis", "index", "title"), [(None, None, "y = 30 m"), (0, 2, "depth = 20 m"), (2, -1, "x = 70 m")]
)
def test_three_axes_give_a_slice(axis, index, title):
    field = RANDOM.normal(size=VOLUME.shape)
    ax = plot.snapshot(field, VOLUME, np.abs(field), axis=axis, index=index)
    across = 1 if axis is None else axis
    expected = np.take(field, VOLUME.shape[across] // 2 if index is None else index, axis=across)
    np.testing.assert_array_equal(ax.images[1].get_array(), expected)
    assert ax.get_title() == title
    names = [n for k, n in enumerate(("depth (m)", "y (m)", "x (m)")) if k != across]
    assert [ax.get_ylabel(), ax.get_xlabel()] == names


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plot.snapshot(FIELD.T, GRID), r"`field` must have the shape of the grid, \(20, 30\), got \(30, 20\)"),
        (lambda: plot.snapshot(FIELD, GRID, MODEL[:5]), "`model` must have the shape"),
        (lambda: plot.snapshot(FIELD + 1j, GRID), "`field` must hold real numbers"),
        (lambda: plot.snapshot([[1.0], [1.0, 2.0]], GRID), "`field` cannot be made one array"),
        (lambda: plot.snapshot(FIELD, GRID, clip=0), "`clip` is a percentile"),
        (lambda: plot.snapshot(FIELD, GRID, index=3), "`index` cuts fields on three axes"),
        (lambda: plot.snapshot(FIELD, GRID, axis=1), "`axis` cuts fields on three axes"),
        (lambda: plot.snapshot(np.ones(VOLUME.shape), VOLUME, axis=3), "`axis` must be 0, 1 or 2, got 3"),
        (
            lambda: plot.snapshot(np.ones(VOLUME.shape), VOLUME, index=7),
            "`index` must be a node of axis 1, which has 7",
        ),
    ],
)
def test_bad_input_of_a_snapshot_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- gather ----


def test_a_gather_has_time_downwards_and_receivers_to_the_right():
    traces, times = RANDOM.normal(size=(40, 6)), 0.1 * np.arange(1, 41)
    offsets = np.array([-30.0, -10.0, 0.0, 5.0, 20.0, 50.0])
    ax = plot.gather(jnp.asarray(traces), jnp.asarray(times), offsets, clip=100)
    (mesh,) = ax.collections
    np.testing.assert_array_equal(np.ravel(mesh.get_array()), traces.ravel())
    low, high = ax.get_ylim()
    assert low > high and low == pytest.approx(4.05) and high == pytest.approx(0.05)
    assert mesh.get_clim() == (-np.abs(traces).max(), np.abs(traces).max())
    assert (ax.get_xlabel(), ax.get_ylabel(), mesh.get_cmap().name) == ("offset (m)", "time (s)", "gray")
    # Borders of uneven receivers lie half-way between them.
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-40, -20, -5, 2.5, 12.5, 35, 65])


def test_receivers_are_numbered_without_offsets_and_large_offsets_are_in_kilometres():
    traces, times = RANDOM.normal(size=(10, 3)), np.arange(10.0)
    _, ax = pyplot.subplots()
    assert plot.gather(traces, times, ax=ax) is ax and ax.get_xlabel() == "receiver"
    assert plot.gather(traces, times, [9000.0, 4000.0, 0.0]).get_xlabel() == "offset (km)"
    plot.gather(traces[:, :1], times).figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.ones((4, 5, 6)), np.arange(4.0)), "of many shots choose one"),
        ((np.ones((4, 0)), np.arange(4.0)), "`traces` must have shape"),
        ((np.ones((4, 5)), np.arange(5.0)), r"`times` must have shape \(4,\)"),
        ((np.ones((4, 5)), np.arange(4.0), np.arange(4.0)), r"`offsets` must have shape \(5,\)"),
        ((np.ones((4, 3)), np.arange(4.0), [0.0, 2.0, 1.0]), "ascend or descend"),
    ],
)
def test_bad_input_of_a_gather_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        plot.gather(*arguments)


# ---- models ----


def test_models_share_one_scale_and_one_bar():
    axes = plot.models({"true": MODEL, "found": jnp.asarray(MODEL - 100)}, GRID)
    assert [ax.get_title() for ax in axes] == ["true", "found"]
    assert {ax.images[0].get_clim() for ax in axes} == {(1400.0, 1690.0)}
    assert [b.get_ylabel() for b in bars(axes[0].figure)] == ["speed (m/s)"]
    axes[0].figure.canvas.draw()


def test_wide_models_are_stacked_and_others_stand_side_by_side():
    def places(grid):
        axes = plot.models([np.ones(grid.shape)] * 3, grid)
        axes[0].figure.canvas.draw()
        return [len({round(ax.get_position().bounds[k], 6) for ax in axes}) for k in (0, 1)]

    assert places(Grid((10, 40), 1.0)) == [1, 3]
    assert places(Grid((40, 40), 1.0)) == [3, 1]


def test_many_models_leave_no_empty_axes():
    axes = plot.models([MODEL] * 5, GRID)
    assert len(axes) == 5 and len(axes[0].figure.axes) == 6
    assert [bool(ax.get_xlabel()) for ax in axes] == [False, False, False, True, True]


def test_models_in_the_users_axes():
    figure, given = pyplot.subplots(2, 1)
    assert plot.models([MODEL, MODEL], GRID, axes=given) == list(given)
    figure.canvas.draw()


def test_one_model_of_one_value_is_drawn():
    (ax,) = plot.models([np.full((20, 30), 2000.0)], GRID)
    assert ax.images[0].get_clim() == (1999.5, 2000.5)
    ax.figure.canvas.draw()


def test_models_on_one_axis_are_lines_and_on_three_axes_slices():
    (ax,) = plot.models({"a": np.arange(5.0), "b": np.ones(5)}, Grid(5, 1.0))
    assert len(ax.lines) == 2 and ax.get_legend() is not None
    (ax,) = plot.models({"a": np.ones(VOLUME.shape)}, VOLUME, axis=0, index=1)
    assert ax.get_title() == "a, depth = 10 m"


@pytest.mark.parametrize(
    ("values", "axes", "words"),
    [
        ([], None, "no model"),
        ({"true": MODEL[:3]}, None, r"`values\['true'\]` must have the shape"),
        ([MODEL, MODEL], [None], "`axes` must hold 2 axes, got 1"),
    ],
)
def test_bad_input_of_models_is_named(values, axes, words):
    with pytest.raises(ValueError, match=words):
        plot.models(values, GRID, axes=axes)


# ---- misfit ----


def test_a_misfit_falls_on_a_logarithmic_scale():
    _, ax = pyplot.subplots()
    assert plot.misfit([1.0, 0.1, 0.01], ax=ax, label="misfit (Pa²)") is ax
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "misfit (Pa²)" and ax.get_legend() is None
    named = plot.misfit({"3 Hz": jnp.array([1.0, 0.5]), "5 Hz": [2.0]})
    assert [t.get_text() for t in named.get_legend().get_texts()] == ["3 Hz", "5 Hz"]
    with pytest.raises(ValueError, match="`history`"):
        plot.misfit(np.ones((2, 2)))


# ---- animate ----


def test_an_animation_may_be_drawn_into_axes_of_ones_own(tmp_path):
    from matplotlib.figure import Figure
    from PIL import Image

    own = Figure(figsize=(4, 2), dpi=50)
    left, right = own.subplots(1, 2)
    canvas = own.canvas
    path = plot.animate(RANDOM.normal(size=(2, *GRID.shape)), GRID, tmp_path / "own.gif", ax=right, dpi=300)
    assert right.images and not left.images and own.canvas is canvas
    with Image.open(path) as picture:
        assert picture.size == (200, 100) and picture.n_frames == 2


def frames_of(path):
    with Image.open(path) as picture:
        frames = [np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(picture)]
        return frames, picture.info


def test_an_animation_has_its_frames_and_one_scale(tmp_path):
    fields = np.stack([0.1 * FIELD, FIELD, 0 * FIELD])
    path = plot.animate(
        jnp.asarray(fields), GRID, str(tmp_path / "new" / "wave.gif"), times=[0.1, 0.2, 0.3], fps=10, dpi=50
    )
    frames, info = frames_of(path)
    assert path.name == "wave.gif" and len(frames) == 3 and info["duration"] == 100 and info["loop"] == 0
    # In the common scale the first field is paler than the second, and the third is blank.
    colour = [np.mean(np.ptp(frame[:, : frame.shape[1] // 2], axis=2)) for frame in frames]
    assert colour[1] > 4 * colour[0] > 4 * colour[2]
    assert frames[0][1, 1].tolist() == [255, 255, 255]
    assert not pyplot.get_fignums()


def test_animations_of_lines_and_slices(tmp_path):
    line = plot.animate([np.sin(np.arange(9.0) - k) for k in range(2)], Grid(9, 1.0), tmp_path / "a.gif", dpi=40)
    cut = plot.animate(RANDOM.normal(size=(2, 6, 7, 8)), VOLUME, tmp_path / "b.gif", axis=0, times=[0, 1], dpi=40)
    over = plot.animate(FIELD[None], GRID, tmp_path / "c.gif", model=MODEL, dpi=40)
    assert [len(frames_of(p)[0]) for p in (line, cut, over)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("fields", "name", "more", "words"),
    [
        (FIELD[None], "a.mp4", {}, "must end in .gif"),
        (FIELD, "a.gif", {}, r"`fields` must have shape \(frames, 20, 30\), got \(20, 30\)"),
        (FIELD[None][:0], "a.gif", {}, "`fields` must have shape"),
        (FIELD[None], "a.gif", {"times": [0.0, 1.0]}, r"`times` must have shape \(1,\)"),
        (FIELD[None], "a.gif", {"fps": 0}, "`fps` must be positive"),
        (FIELD[None], "a.gif", {"model": MODEL.T}, "`model` must have the shape"),
    ],
)
def test_bad_input_of_an_animation_is_named(fields, name, more, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        plot.animate(fields, GRID, tmp_path / name, **more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("times", "words"), [([0.0, 0.5], "t = 0.50 s"), ([0.1, 0.102], "t = 0.1020 s"), ([0.0, 20.0], "t = 20 s")]
)
def test_the_clock_tells_frames_apart(times, words):
    assert paper.clock(np.array(times), 1) == words
