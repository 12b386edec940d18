"""Generation with an exact score: solvers beside Diffrax, in turns on one machine.

    python benchmarks/generate.py                                  # all cases, three rounds
    python benchmarks/generate.py --quick                          # small cases, one round
    python benchmarks/generate.py --picture error.png --json generate.json

Cases: the probability flow of a mixture from given starts in float64 (8 modes in 2 dimensions, 25 in 8 and in 64), and
its reverse diffusion in float32. The error of the flow is the root mean square distance of the ends from the truth;
that of the diffusion is the error of the variance within the modes, with its standard error. Every code gets the same
function as score, whose evaluations are counted by callbacks (`peers/generate_runs.py`). Compile time is apart; seconds
are medians over the runs of a process and over the rounds.

The first table of a case has a row per method and number of evaluations per sample; "ns" is time per evaluation and
sample. The second one tells what an error costs, interpolated between the rows on logarithmic scales; at full size the
targets lie above the standard error of the diffusion, below which chance alone would lead. There "tree / it" is
the time of Diffrax's Euler scheme with a Brownian tree at as many evaluations.

Diffrax gets an environment of its own, made at the first run in `benchmarks/.peers` (or `--peers DIR`), or is that of
`--python PATH`.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import numpy as np
from generate_problem import Case, true_ends
from running import HERE, THREADS, environment, machine, run_case, share_processors, show, table

CODES = ("ours", "diffrax")
TIMEOUT = 1500.0  # s, for one process
TARGETS = {"flow": (1e-1, 1e-2, 1e-3, 1e-5), "diffusion": (3e-1, 1e-1, 5e-2)}
TREE = ("diffrax", "Euler, tree")

Given = dict[str, Any]
Key = tuple[str, str]


def all_cases(quick: bool) -> list[Given]:
    """What is drawn."""
    if quick:
        small = {"d": 2, "modes": 8, "samples": 64}
        return [
            {"kind": "flow", **small, "evaluations": [24, 48]},
            {"kind": "diffusion", **small, "evaluations": [32, 64]},
        ]
    ladder = [12, 24, 48, 96, 192, 384]
    return [
        {"kind": "flow", "d": 2, "modes": 8, "samples": 1024, "evaluations": ladder},
        {"kind": "flow", "d": 8, "modes": 25, "samples": 1024, "evaluations": ladder},
        {"kind": "flow", "d": 64, "modes": 25, "samples": 256, "evaluations": ladder},
        {"kind": "diffusion", "d": 2, "modes": 8, "samples": 1024, "evaluations": [32, 64, 128, 256, 512]},
        {"kind": "diffusion", "d": 64, "modes": 25, "samples": 256, "evaluations": [32, 64, 128, 256, 512]},
    ]


def title(case: Given) -> str:
    """Name of a case, as `--only` and the table know it."""
    return f"{case['kind']}, {case['modes']} modes in {case['d']}-D, {case['samples']} samples"


def merged(rounds: list[Given]) -> Given:
    """One row from those of all rounds: medians of times, and of errors, which may be random."""
    last = rounds[-1]
    return {**last, **{key: median(r[key] for r in rounds) for key in ("seconds", "compile", "error")}}


def main_table(case: Given, found: dict[Key, list[Given]]) -> str:
    """One line per method and number of evaluations."""
    head = [title(case), "evaluations", "error", "ms", "ns", "compile s"]
    if case["kind"] == "diffusion":
        head = [*head[:3], "+-", *head[3:], "tree / it"]
    slow = {row["wanted"]: row["seconds"] for row in found.get(TREE, [])}
    lines = []
    for (code, method), rows in found.items():
        for row in rows:
            each = 1e9 * row["seconds"] / row["evaluations"] / case["samples"]
            times = [show(1e3 * row["seconds"]), show(each, ".0f"), show(row["compile"], ".1f")]
            line = [f"{code}: {method}", show(row["evaluations"], ".0f"), show(row["error"], ".1e")]
            if case["kind"] == "diffusion":
                ratio = slow[row["wanted"]] / row["seconds"] if row["wanted"] in slow else None
                line, times = [*line, show(row["scatter"], ".0e")], [*times, show(ratio, ".1f")]
            lines.append([*line, *times])
    return table(head, lines)


def cost_table(case: Given, found: dict[Key, list[Given]]) -> str:
    """What an error costs: evaluations and milliseconds."""
    head = ["evaluations (ms) to an error of", *(f"{target:.0e}" for target in TARGETS[case["kind"]])]
    lines = []
    for (code, method), rows in found.items():
        cells = []
        for target in TARGETS[case["kind"]]:
            told = [interpolated(rows, key, target) for key in ("evaluations", "seconds")]
            cells.append("-" if None in told else f"{told[0]:.0f} ({1e3 * told[1]:.1f})")
        lines.append([f"{code}: {method}", *cells])
    return table(head, lines)


def interpolated(rows: list[Given], key: str, target: float) -> float | None:
    """The value of `key` where the error first falls below the target; None outside of what was run."""
    for before, after in itertools.pairwise(rows):
        high, low = before["error"], after["error"]
        if high >= target >= low and high > low > 0:
            share = math.log(high / target) / math.log(high / low)
            return before[key] ** (1 - share) * after[key] ** share
    return None


def draw_picture(cases: list[Given], found: list[dict[Key, list[Given]]], path: Path) -> None:
    """Error against evaluations, ours in full lines, Diffrax's in broken ones; a panel per case."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(5.2 * len(cases), 4.6), layout="constrained")
    for ax, case, methods in zip(page.subplots(1, len(cases), squeeze=False)[0], cases, found, strict=True):
        for number, ((code, method), rows) in enumerate(methods.items()):
            style = {"linestyle": "-", "marker": "o"} if code == "ours" else {"linestyle": "--", "marker": "s"}
            x, y = ([row[key] for row in rows] for key in ("evaluations", "error"))
            ax.loglog(x, y, **style, markersize=4, color=f"C{number % 10}", label=f"{code}: {method}")
        if case["kind"] == "diffusion":
            ax.axhline(next(iter(methods.values()))[0]["scatter"], color="0.7", linewidth=1, label="standard error")
        ax.set(xlabel="evaluations of the score per sample", ylabel="error", title=title(case))
        ax.set_xticks(case["evaluations"], case["evaluations"])
        ax.minorticks_off()
        ax.grid(alpha=0.25)
        ax.legend(frameon=False, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, one round")
    parser.add_argument("--rounds", type=int, help="number of turns (default 3; 1 with --quick)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per process (default 5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--codes", default=",".join(CODES), help="which codes")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", metavar="DIR", help="the peers' environments")
    parser.add_argument("--python", metavar="PATH", help="a Python that has Diffrax, in place of --peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw error against evaluations into FILE")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark; returns 1 where a code gave no answer."""
    args = arguments()
    codes = args.codes.split(",")
    cases = [case for case in all_cases(args.quick) if args.only in title(case)]
    if not cases:
        sys.exit(f"no case contains {args.only!r}")
    rounds = args.rounds or (1 if args.quick else 3)
    share_processors()
    pythons = {c: sys.executable if c == "ours" else args.python or environment(c, args.peers) for c in codes}
    answers: list[dict[tuple[str, str, int], list[Given]]] = [{} for _ in cases]
    versions: dict[str, str] = {}
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            if case["kind"] == "flow":
                case["truth"] = str(Path(folder) / f"{number}.npy")
                np.save(case["truth"], true_ends(Case(**case)))
        for turn in range(rounds):
            for case, rows in zip(cases, answers, strict=True):
                for code in codes:
                    print(f"round {turn + 1}/{rounds}: {title(case)}: {code}", file=sys.stderr, flush=True)
                    try:
                        answer = run_case(code, "generate", pythons[code], case, args.repeats, TIMEOUT)
                    except RuntimeError as error:
                        errors.append(f"{title(case)}: {code}: {error}")
                        continue
                    versions |= answer["versions"]
                    for row in answer["rows"]:
                        rows.setdefault((code, row["method"], row["wanted"]), []).append(row)

    found: list[dict[Key, list[Given]]] = [{} for _ in cases]
    for methods, rows in zip(found, answers, strict=True):
        for (code, method, _), told in rows.items():
            methods.setdefault((code, method), []).append(merged(told))
    print(machine())
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{THREADS} threads, median of {rounds} round(s)")
    for case, methods in zip(cases, found, strict=True):
        print("\n" + main_table(case, methods))
        print("\n" + cost_table(case, methods))
    if errors:
        print("\nNo answer:", *errors, sep="\n  ")
    if args.picture:
        draw_picture(cases, found, args.picture)
    if args.json:
        runs = [
            {"case": case, "rows": [{"code": c, "method": m, "rounds": r} for (c, m, _), r in rows.items()]}
            for case, rows in zip(cases, answers, strict=True)
        ]
        record = {"machine": machine(), "versions": versions, "runs": runs, "errors": errors}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
