"""What happens at each face of a box."""

from typing import Any

import equinox as eqx

from ..core.checks import is_whole


class Absorbing(eqx.Module):
    """Waves leave: a layer of `width` cells outside the user's grid swallows them (convolutional PML).

    The medium of the layer continues the edge of the grid. Reflection at 20 cells is below 1e-4 of the incident
    amplitude; see the explanation page on absorbing layers for the measured table.

    Args:
        width: number of cells, at least 1.

    Raises:
        ValueError: if the width is not a whole number of at least 1.

    Example:
        >>> Absorbing(12)
        Absorbing(width=12)
    """

    width: int = eqx.field(static=True)

    def __init__(self, width: Any = 20):
        if not is_whole(width) or width < 1:
            raise ValueError(f"Absorbing(width) needs a whole number of cells, at least 1, got {width!r}.")
        self.width = int(width)


class Free(eqx.Module):
    """Zero pressure on the first (last) node of the axis: a free surface."""


class Rigid(eqx.Module):
    """Zero normal derivative on the first (last) node of the axis: a wall."""


class Periodic(eqx.Module):
    """The axis closes on itself: the node after the last one is the first. Both faces of an axis or none."""


Face = Absorbing | Free | Rigid | Periodic


def faces_of(boundary: Any, ndim: int) -> tuple[tuple[Face, Face], ...]:
    """(lower, upper) of every axis, from one entry for all faces or one per axis, each an entry or a pair.

    Raises:
        ValueError: if the nesting does not fit the number of axes or a face is not a boundary.

    Example:
        >>> faces_of(((Free(), Absorbing(12)), Periodic()), 2)[0]
        (Free(), Absorbing(width=12))
    """
    how = (
        "`boundary` is one entry for all faces, or a tuple with one entry per axis, each for both faces or a pair "
        f"(lower, upper); this grid has {ndim} {'axis' if ndim == 1 else 'axes'}"
    )
    per_axis = (boundary,) * ndim if isinstance(boundary, Face) else boundary
    if not isinstance(per_axis, (tuple, list)) or len(per_axis) != ndim:
        raise ValueError(f"{how}, got {boundary!r}.")
    faces = []
    for entry in per_axis:
        pair = (entry, entry) if isinstance(entry, Face) else entry
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(f, Face) for f in pair):
            raise ValueError(f"{how}; {entry!r} is neither Absorbing, Free, Rigid or Periodic nor a pair of these.")
        if isinstance(pair[0], Periodic) != isinstance(pair[1], Periodic):
            raise ValueError(f"An axis is periodic on both faces or on none, got {entry!r}.")
        faces.append((pair[0], pair[1]))
    return tuple(faces)


def layer_widths(faces: tuple[tuple[Face, Face], ...]) -> tuple[tuple[int, int], ...]:
    """Cells that absorbing layers add below and above every axis."""
    return tuple(
        tuple(face.width if isinstance(face, Absorbing) else 0 for face in pair)  # type: ignore[misc]
        for pair in faces
    )
