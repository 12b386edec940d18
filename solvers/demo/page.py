"""The page that shows what the demo computed: one HTML file and the pictures beside it."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One number with its truth, as text."""

    quantity: str
    ours: str
    truth: str
    error: str


class Picture(NamedTuple):
    """A file in the folder of the page and the sentence under it."""

    file: str
    sentence: str


class Chapter(NamedTuple):
    """What one part of the demo hands back."""

    title: str
    text: str
    rows: Sequence[Row]
    pictures: Sequence[Picture]


HEADER = ("quantity", "computed", "true value", "difference")

STYLE = """
:root { color-scheme: light; --ink: #1c2733; --soft: #5b6b7b; --line: #dfe5ea; --accent: #0b6e8a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; background: #fff; color: var(--ink);
       font: 1rem/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 2rem; letter-spacing: -.01em; }
h2 { margin: 3rem 0 .5rem; padding-top: 1.25rem; border-top: 1px solid var(--line); font-size: 1.35rem; }
p { max-width: 46rem; }
.lead { margin-top: 0; color: var(--soft); font-size: 1.1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .4rem 1.1rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { color: var(--soft); font-weight: 600; }
figure { margin: 1.75rem 0; }
figure img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; }
figcaption { margin-top: .5rem; max-width: 46rem; color: var(--soft); font-size: .95rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .9rem; }
"""


def write_page(folder: Path, title: str, lead: str, chapters: Sequence[Chapter], footer: str) -> Path:
    """Write index.html into the folder of the pictures and return its path."""
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>']
    for chapter in chapters:
        body += [f"<h2>{html.escape(chapter.title)}</h2>", f"<p>{html.escape(chapter.text)}</p>", _table(chapter.rows)]
        body += map(_figure, chapter.pictures)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<footer>{html.escape(footer)}</footer>\n</body>\n</html>\n"
    )
    path = folder / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADER)
    lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(lines) + "\n</table></div>"


def _figure(picture: Picture) -> str:
    sentence = html.escape(picture.sentence)
    return f'<figure><img src="{picture.file}" alt="{sentence}"><figcaption>{sentence}</figcaption></figure>'
