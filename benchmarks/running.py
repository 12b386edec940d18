"""What the benchmarks share: environments of the peers, the machine, and Markdown tables."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THREADS = 2


def environment(name: str, folder: Path) -> str:
    """Make the environment of a peer if it is missing or its requirements changed; returns its Python."""
    requirements = HERE / "peers" / f"{name}.txt"
    place = folder / name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / "installed.txt"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print(f"Setting up {name} in {place} ...", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
        stamp.write_text(requirements.read_text())
    return str(python)


def show(value: float | None, style: str = ".2f") -> str:
    """Format a number, or a dash where there is none."""
    return "-" if value is None else f"{value:{style}}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a Markdown table that also reads well as plain text."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "| "
        + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join(line + " |" if line is not rule else line + "|" for line in (text[0], rule, *text[1:]))


def machine() -> str:
    """Name the processor, the system and the Python."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def run_case(code: str, topic: str, python: str, case: dict[str, Any], repeats: int, timeout: float) -> dict[str, Any]:
    """Run one case of `ours_TOPIC.py` or `peers/CODE_TOPIC.py` in a process of its own, within `timeout` seconds.

    Raises:
        RuntimeError: with the last line that the process said, where it gave no answer.
    """
    script = HERE / f"ours_{topic}.py" if code == "ours" else HERE / "peers" / f"{code}_{topic}.py"
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu"}
    if code == "ours":
        env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [env.get("PYTHONPATH")])])
    argument = json.dumps({**case, "repeats": repeats})
    try:
        done = subprocess.run([python, str(script), argument], capture_output=True, text=True, env=env, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {timeout:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(said[-1])
    return json.loads(lines[-1])


def share_processors() -> None:
    """Keep to two processors; processes started from here inherit this, so that all codes see the same ones."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
