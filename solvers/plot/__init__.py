"""Pictures of results, one line each: snapshots, shot gathers, models side by side, misfits, animations.

Every function draws into the axes that it is given, or else into a new figure, and returns the axes. Matplotlib is
imported when the first picture is drawn. Axis 0 of a grid with two or three axes is depth and points downwards.

    sv.plot.snapshot(wave.pressure(run.final), grid, speed)
    sv.plot.gather(run.observed, run.times, offsets)
    sv.plot.models({"true": true, "start": start, "found": found}, grid)
    sv.plot.animate(frames, grid, "wave.gif", times=run.times, model=speed)
    sv.plot.traces(run)
    sv.plot.marginals(run)
    sv.plot.autocorrelation(run)
"""

from .chains import autocorrelation, marginals, traces
from .fields import animate, models, snapshot
from .records import gather, misfit

__all__ = ["animate", "autocorrelation", "gather", "marginals", "misfit", "models", "snapshot", "traces"]
