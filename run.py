"""Makes the private environment `.venv` if need be, then works in it.

    python3 run.py demo [arguments]    the main job on its embedded default: numbers, pictures, one page
    python3 run.py test [arguments]    the tests; the arguments go to pytest
    python3 run.py lint                lint, format and types

Standard library only, and no syntax that an old Python cannot read: that Python is told what is wrong.
"""

from __future__ import print_function

import hashlib
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
SCRIPTS = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""
PYTHON = os.path.join(SCRIPTS, "python" + EXE)
STAMP = os.path.join(VENV, "set-up-of-this-project")
COMMANDS = {
    "demo": [[os.path.join(SCRIPTS, "solvers" + EXE), "demo"]],
    "test": [[PYTHON, "-m", "pytest"]],
    "lint": [
        [PYTHON, "-m", "ruff", "check"],
        [PYTHON, "-m", "ruff", "format", "--check"],
        [PYTHON, "-m", "pyright", "--pythonpath", PYTHON],
    ],
}


def stamp():
    """What the environment depends on: the metadata, the Python and the folder (the install points into it)."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return hashlib.sha256(file.read() + repr((sys.version, ROOT)).encode()).hexdigest()


def is_set_up():
    """Whether the last set-up came to its end and is still the right one."""
    if not (os.path.exists(PYTHON) and os.path.exists(STAMP)):
        return False
    with open(STAMP) as file:
        return file.read() == stamp()


def borrowed_pip():
    """The pip of this Python, aimed at the environment; where it has none, one line says so."""
    told = subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    version = re.match(r"pip (\d+)\.(\d+)", told.stdout.decode())
    if not version or tuple(map(int, version.groups())) < (22, 3):  # 22.3 brought --python
        found = "pip %s.%s" % version.groups() if version else "none"
        sys.exit(
            "set-up needs pip 22.3 or newer; %s has %s (Debian: apt install python3-pip)" % (sys.executable, found)
        )
    return [sys.executable, "-m", "pip", "--python", PYTHON]


def set_up():
    """Make the environment anew; the stamp comes last, so that a set-up cut short is made again."""
    print("setting up .venv (once, about a minute) ...")
    sys.stdout.flush()
    venv = [sys.executable, "-m", "venv", "--clear", VENV]
    pip = [PYTHON, "-m", "pip"]
    if subprocess.run(venv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        # Debian keeps ensurepip, which puts pip into an environment, in a package of its own.
        pip = borrowed_pip()
        if subprocess.run(venv + ["--without-pip"]).returncode != 0:
            sys.exit("set-up failed: %s could not make %s" % (sys.executable, VENV))
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    install = pip + ["install", "--disable-pip-version-check", "--editable", ".[dev]"] + quiet
    if subprocess.run(install, cwd=ROOT).returncode != 0:
        sys.exit("set-up failed: pip could not install what solvers needs; its reason stands above")
    with open(STAMP, "w") as file:
        file.write(stamp())


def main(arguments, version=sys.version_info):
    """Run the named command; its first exit status that is not 0 is ours."""
    if version[:2] < (3, 11):
        sys.exit("solvers needs Python 3.11 or newer; %s is Python %d.%d" % ((sys.executable,) + tuple(version[:2])))
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__)
        return 2
    if not is_set_up():
        set_up()
    folder = None if arguments[0] == "demo" else ROOT  # the demo writes where the user stands
    codes = [subprocess.run(command + arguments[1:], cwd=folder).returncode for command in COMMANDS[arguments[0]]]
    return next((code for code in codes if code != 0), 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
