"""Tables of text for the terminal."""

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest entry: the first flush left, the others as their entries ask.

    A column of numbers is flush right, a column of words flush left.

    Example:
        >>> print(aligned(("quantity", "ours"), [("peak", "0.25"), ("arrival, s", "1.5")]))
        quantity    ours
        ----------  ----
        peak        0.25
        arrival, s   1.5
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(map(_is_number, column[1:])) and len(column) > 1 for column in columns]

    def line(entries: Sequence[str]) -> str:
        cells = [e.rjust(w) if r else e.ljust(w) for e, w, r in zip(entries, widths, right, strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def _is_number(entry: str) -> bool:
    first = entry.split(" ")[0]
    return entry in ("", "-") or first.lstrip("+-").replace(".", "", 1)[:1].isdigit()
