"""Animations as GIF files, with one palette for all frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .paper import palette_sample


def check_gif(path: str | Path, fps: float | int) -> Path:
    """The path, or ValueError."""
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"`path` must end in .gif, got {str(path)!r}.")
    if not fps > 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    return path


def write_gif(path: Path, figure: Any, draw: Callable[[int], None], count: int, fps: float | int) -> Path:
    """Write `count` frames, each set up by `draw(number)`; returns the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    own = figure.canvas, figure.get_layout_engine()
    canvas = FigureCanvasAgg(figure)

    def render(number: int) -> Any:
        draw(number)
        canvas.draw()
        return Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])

    render(0)
    # The layout of the first frame serves all: nothing but the field and the time changes.
    figure.set_layout_engine("none")
    # One palette for all frames, from some of them and the colour map: with one each the colours would flicker.
    some = {k: render(k) for k in sorted({count * j // 8 for j in range(8)})}
    pixels = [np.asarray(picture) for picture in some.values()]
    palette = Image.fromarray(np.vstack([*pixels, palette_sample(pixels[0].shape)])).quantize(256)
    chosen = np.reshape(palette.getpalette() or [], (-1, 3))
    # White paper stays white.
    palette.putpalette(np.where(chosen.min(axis=1, keepdims=True) > 245, 255, chosen).ravel().tolist())
    frames = (some[k] if k in some else render(k) for k in range(count))
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    # The figure may be the user's, with a window and a layout of its own.
    figure.set_canvas(own[0])
    figure.set_layout_engine(own[1] if own[1] is not None else "none")
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
    return path
