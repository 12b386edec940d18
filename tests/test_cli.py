"""The program: what it says, what it returns, what it leaves behind."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import solvers
from solvers import cli
from solvers.demo import page, progress, recovery, survey
from solvers.evidence import rows
from solvers.evidence.record import Evidence, Row
from solvers.evidence.waves import ROWS as WAVES


def test_help_reads_no_jax():
    program = "import sys, solvers.cli\ntry: solvers.cli.main(['--help'])\nfinally: assert 'jax' not in sys.modules"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert all(command in told.stdout for command in ("demo", "validate", "bench"))


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"solvers {solvers.__version__}\n"


@pytest.mark.parametrize("words", [[], ["fly"], ["demo", "--fast"], ["validate", "no-such-row"]])
def test_bad_arguments_exit_with_two(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage: solvers" in capsys.readouterr().err


def test_the_demo_writes_into_folders_only(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit):
        cli.main(["demo", "--out", str(tmp_path / "file")])
    assert "must be a folder" in capsys.readouterr().err


def test_bench_needs_a_checkout(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "solvers" / "cli.py"))
    assert cli.main(["bench"]) == 1
    assert "needs a checkout" in capsys.readouterr().err


@pytest.fixture
def table(monkeypatch):
    """A function that puts rows with given errors, or exceptions, in place of the table's own; the bound is 1."""

    def put(**errors):
        def compute(error):
            if isinstance(error, Exception):
                raise error
            return Evidence(ours=2.0, reference=1.0, error=error, bound=1.0)

        made = [Row(name, f"quantity {name}", "theory", lambda e=e: compute(e)) for name, e in errors.items()]
        monkeypatch.setattr(rows, "ROWS", tuple(made))

    return put


def test_kept_bounds_exit_with_zero(table, capsys):
    table(first=0.5, second=1.0)
    assert cli.main(["validate"]) == 0
    told = capsys.readouterr().out
    assert told.count("ok") == 2
    assert all(word in told for word in rows.HEADER)


@pytest.mark.parametrize("error", [1.5, float("nan"), ValueError("broken")])
def test_a_missed_bound_exits_with_one_and_hides_no_other_row(table, capsys, error):
    table(bad=error, good=0.5)
    assert cli.main(["validate"]) == 1
    told = capsys.readouterr().out
    assert "MISSED" in told and "ok" in told
    assert str(error) in told or "above the bound" in told


def test_a_name_chooses_rows(table, capsys):
    table(wave=0.5, flow=2.0)
    assert cli.main(["validate", "wave"]) == 0
    assert "quantity flow" not in capsys.readouterr().out
    cli.main(["validate", "--list"])
    assert capsys.readouterr().out.split() == ["wave", "flow"]


def test_row_names_differ():
    assert len(set(rows.names())) == len(rows.names())


@pytest.mark.slow
@pytest.mark.parametrize("row", WAVES, ids=lambda row: row.name)
def test_waves_keep_their_bounds(row):
    found = row.compute()
    assert found.ok, found


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys):
    with progress.progress("march", 100, lines=4) as step:
        for n in range(100):
            step(f"step {n}")
    lines = capsys.readouterr().out.splitlines()
    assert 4 <= len(lines) <= 5 and lines[-1] == "march: 100 of 100, step 99"


def test_the_page_shows_every_picture_and_escapes_text(tmp_path):
    chapter = page.Chapter(
        "Waves", "a < b", [page.Row("peak", "1", "1", "0 %")], [page.Picture("wave.gif", "Fast & far.")]
    )
    text = page.write_page(tmp_path, "Title", "Lead", [chapter], "foot").read_text(encoding="utf-8")
    assert '<img src="wave.gif" alt="Fast &amp; far.">' in text and "a &lt; b" in text
    assert "http" not in text, "the page loads nothing from elsewhere"


@pytest.mark.slow
def test_the_search_recovers_a_part_of_the_model():
    line = survey.survey(60.0, shots=2, seconds=0.9)
    told = []
    (stage,) = recovery.search(line, (2.0,), 3, told.append)
    assert len(told) == 3 and len(stage.misfits) == 4
    assert stage.misfits[-1] < 0.5 * stage.misfits[0]
    water = ~line.below_water()
    np.testing.assert_array_equal(stage.model[water], line.start[water])
    assert stage.model.min() >= recovery.SLOWEST and stage.model.max() <= survey.FASTEST


@pytest.mark.slow
def test_the_demo_leaves_a_page_whose_pictures_exist(tmp_path, capsys):
    assert cli.main(["demo", "--quick", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    shown = [part.split('"')[0] for part in text.split('src="')[1:]]
    assert len(shown) >= 6
    assert all((pathlib.Path(tmp_path) / name).stat().st_size > 5000 for name in shown)
    assert "true value" in capsys.readouterr().out
