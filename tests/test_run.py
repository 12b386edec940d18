"""The set-up script: when it sets up, and what it says where it cannot. No environment is made here."""

import ast
import importlib.util
import pathlib
import subprocess
from types import SimpleNamespace

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "run.py"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The script as a module, at work in a folder of its own."""
    spec = importlib.util.spec_from_file_location("run_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "python").touch()
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "PYTHON", str(tmp_path / "python"))
    monkeypatch.setattr(module, "STAMP", str(tmp_path / "stamp"))
    return module


@pytest.fixture
def calls(run, monkeypatch):
    """The commands that the script would have run, with the exit status to give for each."""
    made = SimpleNamespace(commands=[], status=lambda command: 0, pip=b"pip 24.0 from here")

    def answer(command, **_):
        made.commands.append(command)
        return subprocess.CompletedProcess(command, made.status(command), made.pip)

    monkeypatch.setattr(run.subprocess, "run", answer)
    return made


def test_it_parses_on_an_old_python():
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_an_old_python_is_told_in_one_line(run):
    with pytest.raises(SystemExit) as told:
        run.main(["demo"], version=(3, 10, 13))
    assert "needs Python 3.11 or newer" in told.value.code and "3.10" in told.value.code
    assert "\n" not in told.value.code


@pytest.mark.parametrize("arguments", [[], ["no-such-command"]])
def test_a_wrong_command_shows_the_right_ones(run, capsys, arguments):
    assert run.main(arguments) == 2
    assert "run.py demo" in capsys.readouterr().out


def test_the_second_call_goes_straight_to_work(run, calls):
    assert run.main(["test"]) == 0
    first = len(calls.commands)
    assert run.main(["test", "-k", "wave"]) == 0
    assert calls.commands[first:] == [[*run.COMMANDS["test"][0], "-k", "wave"]]


@pytest.mark.parametrize("change", ["pyproject", "python", "folder", "environment"])
def test_a_change_sets_up_again(run, calls, monkeypatch, tmp_path, change):
    run.set_up()
    assert run.is_set_up()
    if change == "pyproject":
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    elif change == "python":
        monkeypatch.setattr(run.sys, "version", "3.99.0")
    elif change == "folder":
        (tmp_path / "moved").mkdir()
        (tmp_path / "moved" / "pyproject.toml").write_text("[project]\n")
        monkeypatch.setattr(run, "ROOT", str(tmp_path / "moved"))
    else:
        (tmp_path / "python").unlink()
    assert not run.is_set_up()


def test_a_failed_install_leaves_no_stamp(run, calls):
    calls.status = lambda command: int("install" in command)
    with pytest.raises(SystemExit, match="pip could not install"):
        run.main(["test"])
    assert not run.is_set_up()


def test_pip_is_borrowed_where_ensurepip_is_missing(run, calls):
    calls.status = lambda command: int("venv" in command and "--without-pip" not in command)
    run.set_up()
    (install,) = (command for command in calls.commands if "install" in command)
    assert install[:5] == [run.sys.executable, "-m", "pip", "--python", run.PYTHON]


@pytest.mark.parametrize(("pip", "found"), [(b"", "none"), (b"pip 22.2.1 from there", "pip 22.2")])
def test_no_pip_is_told_in_one_line(run, calls, pip, found):
    calls.status, calls.pip = lambda command: int("venv" in command), pip
    with pytest.raises(SystemExit) as told:
        run.set_up()
    assert "pip 22.3 or newer" in told.value.code and found in told.value.code
    assert "\n" not in told.value.code


def test_the_exit_status_of_the_work_is_passed_on(run, calls):
    run.set_up()
    calls.status = lambda command: 5 if "pytest" in command else 0
    assert run.main(["test"]) == 5
    calls.status = lambda command: -9 if "format" in command else 0
    assert run.main(["lint"]) == -9
