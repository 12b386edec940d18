"""The console program: `solvers demo | validate | bench`."""

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from . import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status.

    Args:
        arguments: words of the command line; those of the process by default.

    Returns:
        0 for success, 1 where a bound was missed or a benchmark cannot run; bad arguments exit with 2.

    Example:
        >>> main(["--version"])
        Traceback (most recent call last):
        SystemExit: 0
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    return asked.run(parser, asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="solvers", description="Differentiable solvers for JAX: simulate, differentiate through, and invert."
    )
    parser.add_argument("--version", action="version", version=f"solvers {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="waves, generated digits and more, beside true values; write pictures and one page",
        description="Recover a velocity model from recorded waves by gradients through the solver, draw digits from a "
        "trained score, and show the other parts of the library. Prints what was computed beside the true values and "
        "writes pictures and index.html.",
    )
    demo.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("demo-output"),
        metavar="DIR",
        help="folder for the pictures and the page (default: %(default)s)",
    )
    demo.add_argument("--quick", action="store_true", help="smaller and faster: below 20 seconds on two cores")
    demo.set_defaults(run=_demo)

    validate = commands.add_parser(
        "validate",
        help="compare with analytic solutions and published numbers",
        description="Compute numbers that are known from theory or from the literature and print both, with the error, "
        "the bound that it must keep, and the time. Exits with 1 if a bound is missed.",
    )
    validate.add_argument("name", nargs="?", metavar="NAME", help="only rows whose name starts so, for example wave")
    validate.add_argument("--list", action="store_true", help="list the names and stop")
    validate.set_defaults(run=_validate)

    bench = commands.add_parser(
        "bench",
        help="time waves beside Devito and Deepwave (needs a checkout of the repository)",
        description="Run the quick cases of benchmarks/wave.py, which is part of the repository and not of the "
        "installed package. The peers are installed into environments of their own at the first run.",
    )
    bench.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="passed on to benchmarks/wave.py")
    bench.set_defaults(run=_bench)
    return parser


def _demo(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    if asked.out.exists() and not asked.out.is_dir():
        parser.error(f"--out must be a folder; {asked.out} is a file")
    _prepare()
    from .demo.parts import run

    run(asked.out, quick=asked.quick, version=__version__)
    return 0


def _validate(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    from .evidence.rows import named, names, validate

    if asked.name is not None and not named(asked.name):
        parser.error(f"no row starts with {asked.name!r}; the rows are: {', '.join(names())}")
    if asked.list:
        print("\n".join(names(asked.name)))
        return 0
    _prepare()
    return 0 if validate(asked.name) else 1


def _bench(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    script = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "wave.py"
    if not script.is_file():
        told = (
            "solvers bench needs a checkout of the repository: benchmarks/wave.py is no part of the installed package."
        )
        print(told, file=sys.stderr)
        return 1
    return subprocess.run([sys.executable, str(script), *(asked.rest or ["--quick"])]).returncode


def _prepare() -> None:
    """Settings of the program, which are not the library's to make: double precision, pictures without a display."""
    import os

    os.environ.setdefault("MPLBACKEND", "Agg")
    import jax

    jax.config.update("jax_enable_x64", True)
