"""The door: every public name can be fetched, is documented, and hides behind no module of the same name."""

import inspect
import pathlib

import pytest

import solvers

NAMES = sorted(name for name in solvers.__all__ if not name.startswith("_"))
OBJECTS = [name for name in NAMES if not inspect.ismodule(getattr(solvers, name))]
MODULES = {path.stem for path in pathlib.Path(solvers.__file__).parent.rglob("*.py")} | {
    path.parent.name for path in pathlib.Path(solvers.__file__).parent.rglob("*/__init__.py")
}


def test_every_name_is_listed_once():
    assert len(NAMES) == len(set(NAMES))
    assert set(NAMES) <= set(dir(solvers))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_ours_and_documented(name):
    public = getattr(solvers, name)
    home = public.__name__ if inspect.ismodule(public) else public.__module__
    assert home.startswith("solvers")
    # A class without a docstring would show that of its base, so look at its own.
    text = vars(public).get("__doc__") if inspect.isclass(public) else inspect.getdoc(public)
    assert text and len(text.split()) >= 3, f"{name} says nothing of itself"


@pytest.mark.parametrize("name", OBJECTS)
def test_no_module_bears_a_public_name(name):
    assert name not in MODULES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = solvers.no_such_name
