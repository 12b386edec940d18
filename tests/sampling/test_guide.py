"""The guide shows what happens: its code runs from the first line to the last."""

import doctest
import pathlib

import pytest

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "sampling.md"


@pytest.mark.slow
def test_the_code_of_the_guide_runs():
    # A fence directly after the last line of output would be taken for output.
    text = GUIDE.read_text(encoding="utf-8").replace("```", "")
    told = []
    example = doctest.DocTestParser().get_doctest(text, {}, GUIDE.name, str(GUIDE), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)
    assert result.attempted > 30 and not result.failed, "".join(told)
