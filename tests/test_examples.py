"""Every example runs at its tiny size and ends in a picture; every relative link of the documentation leads on."""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PICTURES = {".gif", ".png"}


def program(path):
    """The example as a module; their names begin with digits, so that `import` cannot read them."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decays(found):
    """Energy and enstrophy fall at every frame."""
    return all((series[1:] < series[:-1]).all() for series in found)


# What an example finds at its tiny size, where it finds something.
FINDINGS = {
    "06_decaying_turbulence": decays,
    "07_recover_initial_vorticity": lambda found: found[0] < 0.9 * found[1],
    "08_your_own_equation": lambda found: abs(found - 1.2) < 1e-3,
}


# Even tiny they take half a minute, so that only `.ci/run` has them.
LONG = ("03_invert_marmousi", "14_learn_a_vector_field", "16_inpaint_and_condition", "17_exact_likelihood")
RUNS = [pytest.param(path, marks=pytest.mark.slow if path.stem in LONG else ()) for path in EXAMPLES]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_example_ends_in_a_picture(path, tmp_path):
    found = program(path).main(size="tiny", out=tmp_path)
    assert path.stem not in FINDINGS or FINDINGS[path.stem](found), found
    assert any(found.suffix in PICTURES and found.stat().st_size > 1000 for found in tmp_path.rglob("*"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_reads_like_one(path):
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d\d_[a-z]+_[a-z_]+", path.stem)
    assert len(text.splitlines()) <= 120
    assert "# %%" in text and text.startswith('"""')


def links(page):
    """Targets of a page's links and pictures that point into the repository, code blocks left out."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page):
    """Anchors of a page's headings, as GitHub forms them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        assert goal.exists(), f"{page.name} links to {target}"
        assert not anchor or goal.suffix != ".md" or anchor in anchors(goal), f"{page.name} links to {target}"
