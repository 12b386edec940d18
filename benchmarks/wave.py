"""Speed of waves: solvers beside Devito and Deepwave on the same machine, in turns.

    python benchmarks/wave.py                    # all cases, three rounds
    python benchmarks/wave.py --quick            # three cases, one round
    python benchmarks/wave.py --json wave.json   # every single run, too

Each run is a process of its own with two threads, and in every round the codes take turns case by case, so that a slow
minute of the machine meets all of them. A process times several runs after a first one and reports their median; the
table shows the median over the rounds. Compile time is apart. All codes solve the problem of `peers/problem.py` in
float32, with the same time step and number of steps; "differs" is the largest difference between our trace and a
peer's, in units of its root mean square.

Gpts/s are updates of *interior* nodes: absorbing layers are overhead. The bandwidth limit is 16 bytes per node and step
(read two fields and the coefficient, write one); see `triad.py` for the two bandwidths. Small grids live in the
processor's cache and may pass it.

The peers get environments of their own, made at the first run in `benchmarks/.peers` (or `--peers DIR`).
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from running import THREADS, environment, machine, run_case, share_processors, show, table
from triad import measure

HERE = Path(__file__).resolve().parent
PEERS = ("devito", "deepwave")
CODES = ("ours", *PEERS)
BYTES_PER_POINT = 16  # per step
TIMEOUT = 900.0  # s, for one process

Case = dict[str, Any]
Answer = dict[str, Any]


def all_cases() -> list[Case]:
    """Forward runs in two and three dimensions, then gradients."""
    forward = [
        {"dims": dims, "order": order, "layers": layers, "steps": 100, "mode": "forward"}
        for dims in ([2048, 2048], [128, 128, 128])
        for order in (2, 4, 8)
        for layers in (0, 20)
    ]
    gradient = [
        {"dims": [n, n], "order": 8, "layers": layers, "steps": steps, "mode": "gradient"}
        for n, steps in ((256, 1024), (512, 512))
        for layers in (0, 20)
    ]
    return forward + gradient


def is_quick(case: Case) -> bool:
    """Whether a case belongs to the small subset."""
    if case["mode"] == "gradient":
        return case["dims"] == [256, 256] and case["layers"] == 0
    return case["dims"] == [2048, 2048] and case["order"] == 8


def title(case: Case) -> str:
    """Name of a case, as `--only` and the table know it."""
    dims = "x".join(str(n) for n in case["dims"])
    return f"{case['mode']} {dims} x {case['steps']} order {case['order']} layers {case['layers']}"


@dataclass
class Results:
    """Answers of all rounds for one case, by code, and what went wrong."""

    case: Case
    best: bool = False
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def seconds(self, code: str, key: str = "seconds") -> float | None:
        """Median over the rounds of a process's median (or the best of all runs); None where there is no answer."""
        answers = self.answers.get(code)
        if not answers:
            return None
        return min(a[key]["best"] for a in answers) if self.best else median(a[key]["median"] for a in answers)

    def rate(self, code: str) -> float | None:
        """Gpts/s of interior nodes."""
        seconds = self.seconds(code)
        return math.prod(self.case["dims"]) * self.case["steps"] / seconds / 1e9 if seconds else None

    def speedup(self) -> float | None:
        """Our speed over that of the faster peer."""
        ours, peers = self.seconds("ours"), [s for s in map(self.seconds, PEERS) if s]
        return min(peers) / ours if ours and peers else None

    def forward_runs(self, code: str) -> float | None:
        """Time of a gradient in forward runs of the same code."""
        gradient, forward = self.seconds(code), self.seconds(code, "forward_seconds")
        return gradient / forward if gradient and forward else None

    def fields(self) -> float | None:
        """Our temporary memory, in fields of the interior."""
        answers = self.answers.get("ours")
        return answers[-1]["temporary_bytes"] / (4 * math.prod(self.case["dims"])) if answers else None

    def compiling(self) -> float | None:
        """Our compile time, s."""
        answers = self.answers.get("ours")
        return median(a["compile"] for a in answers) if answers else None

    def differs(self) -> float | None:
        """Largest difference between our trace and a peer's (or between the peers where ours is absent)."""
        traces = [self.answers[code][-1]["trace"] for code in CODES if self.answers.get(code)]
        if len(traces) < 2:
            return None
        return max(abs(a - b) for other in traces[1:] for a, b in zip(traces[0], other, strict=True))


def forward_table(results: list[Results], bandwidth: dict[str, float]) -> str:
    """Gpts/s, and what they are beside the peers, the memory and the same run without layers."""
    lossless = {(tuple(r.case["dims"]), r.case["order"]): r.seconds("ours") for r in results if not r.case["layers"]}

    def of(rate: float | None, name: str) -> str:
        return show(rate * BYTES_PER_POINT / bandwidth[name] if rate and name in bandwidth else None)

    rows = []
    for r in results:
        rate, seconds = r.rate("ours"), r.seconds("ours")
        base = lossless.get((tuple(r.case["dims"]), r.case["order"])) if r.case["layers"] else None
        rows.append(
            [
                title(r.case).removeprefix("forward "),
                *(show(r.rate(code), ".3f") for code in CODES),
                show(r.speedup()),
                of(rate, "triad"),
                of(rate, "leapfrog"),
                show(seconds / base if seconds and base else None),
                show(r.compiling(), ".1f"),
                show(r.differs(), ".0e"),
            ]
        )
    head = [
        "forward, Gpts/s",
        *CODES,
        "ours / faster",
        "of triad",
        "of leapfrog",
        "cost of layers",
        "compile s",
        "differs",
    ]
    return table(head, rows)


def gradient_table(results: list[Results]) -> str:
    """Seconds for one gradient with respect to the speed."""
    head = ["gradient, s", "ours", "deepwave", "deepwave / ours", "own forwards", "deepwave's", "fields", "compile s"]
    rows = [
        [
            title(r.case).removeprefix("gradient "),
            show(r.seconds("ours"), ".3f"),
            show(r.seconds("deepwave"), ".3f"),
            show(r.speedup()),
            show(r.forward_runs("ours")),
            show(r.forward_runs("deepwave")),
            show(r.fields(), ".1f"),
            show(r.compiling(), ".1f"),
        ]
        for r in results
    ]
    return table(head, rows)


def main() -> int:
    """Run the benchmark; returns 1 where a code gave no answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three cases, one round")
    parser.add_argument("--rounds", type=int, help="number of turns (default 3; 1 with --quick)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per process (default 5)")
    parser.add_argument("--best", action="store_true", help="compare the fastest runs: for a machine with other work")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--codes", default=",".join(CODES), help=f"which codes (default {','.join(CODES)})")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", metavar="DIR", help="the peers' environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    args = parser.parse_args()
    codes = args.codes.split(",")
    if unknown := set(codes) - set(CODES):
        parser.error(f"unknown codes: {', '.join(sorted(unknown))}; there are {', '.join(CODES)}")
    cases = [c for c in all_cases() if args.only in title(c) and (is_quick(c) or not args.quick)]
    if not cases:
        parser.error(f"no case contains {args.only!r}")
    rounds = args.rounds or (1 if args.quick else 3)

    share_processors()
    pythons = {code: sys.executable if code == "ours" else environment(code, args.peers) for code in codes}

    results = [Results(case, args.best) for case in cases]
    bandwidths = []
    for turn in range(rounds):
        bandwidths.append(measure(threads=THREADS))
        for result in results:
            for code in codes:
                if code == "devito" and result.case["mode"] == "gradient":
                    continue  # it has no automatic gradient
                print(f"round {turn + 1}/{rounds}: {title(result.case)}: {code}", file=sys.stderr, flush=True)
                try:
                    answer = run_case(code, "wave", pythons[code], result.case, args.repeats, TIMEOUT)
                except RuntimeError as error:
                    result.errors[code] = str(error)
                else:
                    result.answers.setdefault(code, []).append(answer)

    bandwidth = {
        name: median(b[name] for b in bandwidths)
        for name in ("triad", "leapfrog")
        if all(name in b for b in bandwidths)
    }
    versions: dict[str, str] = {}
    for result in results:
        for answers in result.answers.values():
            versions |= answers[-1]["versions"]

    print(machine())
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(
        f"{THREADS} threads, float32, {'best' if args.best else 'median'} of {rounds} round(s); memory: "
        + ", ".join(f"{name} {b:.1f} GB/s = {b / BYTES_PER_POINT:.2f} Gpts/s" for name, b in bandwidth.items())
    )
    for mode in ("forward", "gradient"):
        chosen = [r for r in results if r.case["mode"] == mode]
        if chosen:
            print()
            print(forward_table(chosen, bandwidth) if mode == "forward" else gradient_table(chosen))
    errors = [f"{title(r.case)}: {code}: {error}" for r in results for code, error in r.errors.items()]
    if errors:
        print("\nNo answer:", *errors, sep="\n  ")
    if args.json:
        runs = [{"case": r.case, "answers": r.answers, "errors": r.errors} for r in results]
        record = {"machine": machine(), "versions": versions, "bandwidths": bandwidths, "runs": runs}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
