"""Pictures of results, one line each: snapshots, shot gathers, models, misfits, spectra, animations.

Every function draws into the axes that it is given, or else into a new figure, and returns the axes. Matplotlib is
imported when the first picture is drawn. Axis 0 of a grid with two or three axes is depth and points downwards; in
`box` it is x and points to the right.

    sv.plot.snapshot(wave.pressure(run.final), grid, speed)
    sv.plot.gather(run.observed, run.times, offsets)
    sv.plot.models({"true": true, "start": start, "found": found}, grid)
    sv.plot.animate(frames, grid, "wave.gif", times=run.times, model=speed)
    sv.plot.box(flow.vorticity(run.final), grid)
    sv.plot.spectrum(*flow.spectrum(run.final))
    sv.plot.space_time(run.observed, run.times, grid)
    sv.plot.traces(run)
    sv.plot.marginals(run)
    sv.plot.autocorrelation(run)
    sv.plot.vector_field(score, sigma, limits)
    sv.plot.trajectories(path)
    sv.plot.points(draws)
    sv.plot.images(draws)
"""

from .chains import autocorrelation, marginals, traces
from .fields import animate, models, snapshot
from .flow import animate_box, box, space_time, spectrum
from .generated import images, points, trajectories, vector_field
from .records import gather, misfit

__all__ = [
    "animate",
    "animate_box",
    "autocorrelation",
    "box",
    "gather",
    "images",
    "marginals",
    "misfit",
    "models",
    "points",
    "snapshot",
    "space_time",
    "spectrum",
    "traces",
    "trajectories",
    "vector_field",
]
