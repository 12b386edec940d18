"""The guides show what happens: their code runs from the first line to the last."""

import doctest
import pathlib

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["sampling", "generation"])
def test_the_code_of_the_guide_runs(guide):
    page = DOCS / f"{guide}.md"
    # A fence directly after the last line of output would be taken for output.
    text = page.read_text(encoding="utf-8").replace("```", "")
    told = []
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)
    assert result.attempted > 30 and not result.failed, "".join(told)
