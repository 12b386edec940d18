"""Speed of periodic flows: solvers beside Exponax and JAX-CFD on the same machine, in turns.

    python benchmarks/periodic_flow.py                    # all cases, three rounds
    python benchmarks/periodic_flow.py --quick            # small cases, one round
    python benchmarks/periodic_flow.py --json flow.json   # every single run, too

Each run is a process of its own with two threads, and in every round the codes take turns case by case. A process times
several runs after a first one and reports their median; the table shows the median over the rounds. Compile time is
apart. All codes start from the same field of `peers/flow_problem.py` in float32 and take the same number of the same
time steps: we with "etdrk2", the scheme of Exponax, and with "rk3"; JAX-CFD with its four-stage scheme, spectral, two
dimensions only. The error is the root mean square against the truth (a formula, or our fourth-order scheme in double
precision with a quarter of the step), as a share of the field.

The peers get environments of their own, made at the first run in `benchmarks/.peers` (or `--peers DIR`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from running import THREADS, environment, machine, share_processors, show, table

HERE = Path(__file__).resolve().parent
PEERS = ("exponax", "jax_cfd")
OURS = ("etdrk2", "rk3")
TIMEOUT = 1800.0  # s, for one process

Case = dict[str, Any]
Answer = dict[str, Any]


def all_cases(quick: bool) -> list[Case]:
    """Forward runs and gradients in two and three dimensions."""
    plane, cube = ((64, 20), (16, 10)) if quick else ((256, 100), (64, 50))
    cases = [
        {"nodes": plane[0], "axes": 2, "steps": plane[1], "start": start, "mode": "gradient"}
        for start in ("taylor-green", "random")
    ]
    return [*cases, {"nodes": cube[0], "axes": 3, "steps": cube[1], "start": "taylor-green", "mode": "gradient"}]


def title(case: Case) -> str:
    """Name of a case, as `--only` and the table know it."""
    return f"{'x'.join([str(case['nodes'])] * case['axes'])} x {case['steps']} {case['start']}"


def process(python: str, script: Path, *arguments: str, ours: bool) -> str:
    """Run a script; returns what it printed.

    Raises:
        RuntimeError: With the last line that the process said, where it failed.
    """
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu"}
    if ours:
        env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [env.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [python, str(script), *arguments], capture_output=True, text=True, env=env, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return done.stdout


def run(code: str, python: str, case: Case) -> Answer:
    """Time one case with one code in a process of its own."""
    ours = code in OURS
    script = HERE / "ours_flow.py" if ours else HERE / "peers" / f"{code}_flow.py"
    told = process(python, script, json.dumps(case), *([code] if ours else []), ours=ours)
    lines = [line for line in told.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError("no answer")
    return json.loads(lines[-1])


def rows(case: Case, answers: dict[str, list[Answer]], best: bool) -> list[list[str]]:
    """One line per code."""

    def seconds(code: str, key: str) -> float | None:
        given = answers.get(code)
        if not given:
            return None
        return min(a[key]["best"] for a in given) if best else median(a[key]["median"] for a in given)

    def ratio(a: float | None, b: float | None) -> str:
        return show(a / b if a and b else None)

    lines = []
    for code in (*OURS, *PEERS):
        if code not in answers:
            continue
        last = answers[code][-1]
        forward, gradient = seconds(code, "forward_seconds"), seconds(code, "seconds")
        per_step = last["temporary_bytes"] / (4 * case["nodes"] ** case["axes"] * case["steps"])
        lines.append(
            [
                f"{title(case)}, {code}",
                show(forward, ".3f"),
                ratio(seconds("exponax", "forward_seconds"), forward),
                show(gradient, ".3f"),
                ratio(gradient, forward),
                ratio(seconds("exponax", "seconds"), gradient),
                show(last["temporary_bytes"] / 1e6, ".0f"),
                show(per_step, ".1f"),
                show(last["error"], ".1e"),
                show(last["compile"], ".1f"),
            ]
        )
    return lines


def main() -> int:
    """Run the benchmark; returns 1 where a code gave no answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, one round")
    parser.add_argument("--rounds", type=int, help="number of turns (default 3; 1 with --quick)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs per process (default 3)")
    parser.add_argument("--best", action="store_true", help="compare the fastest runs: for a machine with other work")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--codes", default=",".join((*OURS, *PEERS)), help="which codes, separated by commas")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", metavar="DIR", help="the peers' environments")
    parser.add_argument("--python", metavar="PATH", help="one Python that holds all peers, in place of environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    args = parser.parse_args()
    codes = args.codes.split(",")
    if unknown := set(codes) - {*OURS, *PEERS}:
        parser.error(f"unknown codes: {', '.join(sorted(unknown))}; there are {', '.join((*OURS, *PEERS))}")
    cases = [case for case in all_cases(args.quick) if args.only in title(case)]
    if not cases:
        parser.error(f"no case contains {args.only!r}")
    rounds = args.rounds or (1 if args.quick else 3)

    share_processors()
    pythons = {code: sys.executable if code in OURS else args.python or environment(code, args.peers) for code in codes}
    answers: list[dict[str, list[Answer]]] = [{} for _ in cases]
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            case["repeats"] = args.repeats
            if case["axes"] == 3 or case["start"] == "random":
                file = str(Path(folder) / f"{number}.npy")
                print(f"reference: {title(case)}", file=sys.stderr, flush=True)
                process(sys.executable, HERE / "ours_flow.py", json.dumps(case), "truth", file, ours=True)
                case["reference"] = file
        for turn in range(rounds):
            for case, found in zip(cases, answers, strict=True):
                for code in codes:
                    if code == "jax_cfd" and case["axes"] == 3:
                        continue  # its spectral solver has two dimensions
                    print(f"round {turn + 1}/{rounds}: {title(case)}: {code}", file=sys.stderr, flush=True)
                    try:
                        answer = run(code, pythons[code], case)
                    except RuntimeError as error:
                        errors.append(f"{title(case)}: {code}: {error}")
                    else:
                        found.setdefault(code, []).append(answer)

    versions: dict[str, str] = {}
    for found in answers:
        for given in found.values():
            versions |= given[-1]["versions"]
    print(machine())
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{THREADS} threads, float32, {'best' if args.best else 'median'} of {rounds} round(s)\n")
    head = ["", "forward s", "exponax / it", "gradient s", "own forwards", "exponax / it"]
    head += ["MB", "fields per step", "error", "compile s"]
    lines = [line for case, found in zip(cases, answers, strict=True) for line in rows(case, found, args.best)]
    print(table(head, lines))
    if errors:
        print("\nNo answer:", *errors, sep="\n  ")
    if args.json:
        runs = [{"case": case, "answers": found} for case, found in zip(cases, answers, strict=True)]
        record = {"machine": machine(), "versions": versions, "runs": runs, "errors": errors}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
