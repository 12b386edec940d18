"""Progress of a long computation: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str, total: int, *, lines: int = 8) -> Iterator[Callable[[str], None]]:
    """A function to be called after each of `total` steps with a short text.

    On a terminal it moves a bar; elsewhere (a file, a pipe) it prints at most about `lines` lines.

    Example:
        >>> with progress("counting", 2) as step:
        ...     step("one"); step("two")
        counting: 1 of 2, one
        counting: 2 of 2, two
    """
    if sys.stdout.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=title, leave=False, file=sys.stdout) as bar:

            def move(text: str) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update()

            yield move
        return
    done, last, often = 0, 0.0, max(total // lines, 1)

    def tell(text: str) -> None:
        nonlocal done, last
        done += 1
        # A slow step is told at once: silence looks like a hang.
        if done % often == 0 or done == total or time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"{title}: {done} of {total}, {text}", flush=True)

    yield tell
