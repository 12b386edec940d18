"""The guide to periodic flows shows what happens: its code runs from the first line to the last."""

import doctest
import pathlib

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "periodic_flow.md"


@pytest.mark.slow
def test_the_code_of_the_guide_runs():
    # A fence directly after the last line of output would be taken for output.
    text, told = PAGE.read_text(encoding="utf-8").replace("```", ""), []
    example = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)
    assert result.attempted > 10 and not result.failed, "".join(told)
