"""Fixed points and roots: solvers beside JAXopt, Optimistix, TorchDEQ and SciPy, in turns on one machine.

    python benchmarks/fixed_point.py                        # all cases, three rounds
    python benchmarks/fixed_point.py --quick                # the smallest case of each kind, one round
    python benchmarks/fixed_point.py --json fixed_point.json

B1 is the steady Brusselator with its gradient (beyond 32 x 32 with a preconditioner only), B2 the H-equation at three
distances from its fold, B3 a batch of equilibrium layers whose gains spread over [0.3, 0.999], B5 the 23 standard
systems. Each code runs a case in a process of its own with two threads; in every round the codes take turns case by
case. A method is solved to the same 2-norm of the residual by all codes (`peers/equations.py`); "residual" is computed
apart, at the answer. Evaluations are values of the function and products with its Jacobian, counted inside the function
(`peers/counting.py`), per sample in a batch; compile time is apart. A dash: no such number, or no derivative.

The peers get environments of their own, made at the first run in `benchmarks/.peers` (or `--peers DIR`), or all share
the one of `--python PATH`.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from running import THREADS, environment, machine, run_case, share_processors, show, table

HERE = Path(__file__).resolve().parent
PEERS = {"B1": ("optimistix", "scipy"), "B2": ("jaxopt", "optimistix", "torchdeq", "scipy")}
PEERS |= {"B3": ("jaxopt", "optimistix", "torchdeq"), "B5": ("jaxopt", "optimistix", "scipy")}

Case = dict[str, Any]
Row = dict[str, Any]


def all_cases(quick: bool) -> list[Case]:
    """What is solved."""
    if quick:
        return [
            {"bench": "B1", "size": 32},
            {"bench": "B2", "size": 200, "parameter": 0.99},
            {"bench": "B3", "size": 64, "parameter": 16},
            {"bench": "B5"},
        ]
    return [
        {"bench": "B1", "size": 32},
        # Without the preconditioner finer grids take minutes per run.
        *({"bench": "B1", "size": n, "methods": ["FFT"]} for n in (64, 128)),
        *({"bench": "B2", "size": 1000, "parameter": c} for c in (0.9, 0.99, 0.9999)),
        {"bench": "B3", "size": 512, "parameter": 256},
        {"bench": "B5"},
    ]


def title(case: Case) -> str:
    """Name of a case, as `--only` and the table know it."""
    size, parameter = case.get("size"), case.get("parameter")
    return {
        "B1": f"B1 Brusselator {size} x {size}",
        "B2": f"B2 H-equation n = {size}, c = {parameter}",
        "B3": f"B3 {parameter} layers of {size}",
        "B5": "B5 23 standard systems",
    }[case["bench"]]


def seconds(rows: list[Row], key: str) -> float | None:
    """Median over the rounds of the medians of the processes."""
    found = [row[key]["median"] if isinstance(row[key], dict) else row[key] for row in rows if row.get(key) is not None]
    return median(found) if found else None


def solution_table(case: Case, rows: dict[tuple[str, str], list[Row]]) -> str:
    """One line per method of B1, B2 or B3."""
    head = [title(case), "solved", "claims", "evaluations", "value ms", "gradient ms", "gradient error", "compile s"]
    lines = []
    for (code, method), found in rows.items():
        last, value, gradient = found[-1], seconds(found, "seconds"), seconds(found, "gradient_seconds")
        solved = ("yes" if last["solved"] else "no") + (" (other root)" if last.get("root") == "other" else "")
        lines.append(
            [
                f"{code}: {method}",
                solved,
                "yes" if last["claims"] else "no",
                show(last["evaluations"], ","),
                show(None if value is None else 1e3 * value),
                show(None if gradient is None else 1e3 * gradient),
                show(last.get("gradient_error"), ".1e"),
                show(seconds(found, "compile"), ".1f"),
            ]
        )
    return table(head, lines)


def standard_table(case: Case, rows: dict[tuple[str, str], list[Row]]) -> str:
    """One line per method of B5; evaluations are those of the systems that were solved."""
    head = [title(case), "solved", "false claims", "evaluations", "total ms", "compile s each", "missed"]
    lines = []
    for (code, method), found in rows.items():
        last, value = found[-1], seconds(found, "seconds")
        lines.append(
            [
                f"{code}: {method}",
                str(last["solved"]),
                str(last["false_claims"]),
                show(last["evaluations"], ","),
                show(None if value is None else 1e3 * value),
                show(seconds(found, "compile"), ".1f"),
                " ".join(map(str, last["missed"])) or "-",
            ]
        )
    return table(head, lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest case of each kind, one round")
    parser.add_argument("--rounds", type=int, help="number of turns (default 3; 1 with --quick)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per process (default 5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--codes", default="ours,jaxopt,optimistix,torchdeq,scipy", help="which codes")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", metavar="DIR", help="the peers' environments")
    parser.add_argument("--python", metavar="PATH", help="a Python that has all peers, in place of --peers")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds for a process (default 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
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
    needed = {code for case in cases for code in ("ours", *PEERS[case["bench"]]) if code in codes}
    pythons = {
        code: sys.executable if code == "ours" else args.python or environment(code, args.peers) for code in needed
    }

    found: list[dict[tuple[str, str], list[Row]]] = [{} for _ in cases]
    versions: dict[str, str] = {}
    errors: list[str] = []
    for turn in range(rounds):
        for case, rows in zip(cases, found, strict=True):
            for code in ("ours", *PEERS[case["bench"]]):
                if code not in codes:
                    continue
                print(f"round {turn + 1}/{rounds}: {title(case)}: {code}", file=sys.stderr, flush=True)
                try:
                    answer = run_case(code, "fixed_point", pythons[code], case, args.repeats, args.timeout)
                except RuntimeError as error:
                    errors.append(f"{title(case)}: {code}: {error}")
                    continue
                versions |= answer["versions"]
                for row in answer["rows"]:
                    rows.setdefault((code, row["method"]), []).append(row)

    print(machine())
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{THREADS} threads, median of {rounds} round(s); B3 in float32, the others in float64")
    for case, rows in zip(cases, found, strict=True):
        print("\n" + (standard_table if case["bench"] == "B5" else solution_table)(case, rows))
    if errors:
        print("\nNo answer:", *errors, sep="\n  ")
    if args.json:
        runs = [
            {
                "case": case,
                "rows": [{"code": code, "method": method, "rounds": r} for (code, method), r in rows.items()],
            }
            for case, rows in zip(cases, found, strict=True)
        ]
        record = {"machine": machine(), "versions": versions, "runs": runs, "errors": errors}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
