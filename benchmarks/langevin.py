"""Worth of draws: solvers beside BlackJAX, NumPyro and Diffrax on the same machine, in turns.

    python benchmarks/langevin.py             # all cases, three rounds
    python benchmarks/langevin.py --quick     # small cases, one round
    python benchmarks/langevin.py --only gaussian

Cases: a ladder of Gaussians (d = 10, 100, 1000, condition number of the covariance 1 and 1000); eight schools; a field
seen at 32 points on finer and finer grids (the effective sample size per evaluation must not fall), beside BlackJAX's
elliptical slice sampling where its dense covariance is possible, d <= 1024; a chain of the Langevin equation of 1000
steps at d = 100, beside Diffrax with a Brownian tree.

Effective sample sizes are the smallest of bulk and tail (Vehtari et al. 2021) over the quantities judged, values and
squares, by the same code for everyone. A number counts only if all means are within four standard errors of the exact
answers ("accurate"): for the field those of dense algebra at eight of the seen nodes. The chain of the
Langevin equation starts far away and is not stationary: what is judged are means and squares of its 100 independent
coordinates at four times, against the exact law of Euler's chain, and what counts is the time of a step. Gradients, for
fields evaluations of the likelihood, are counted after the warm-up, for all chains; seconds exclude warm-up and
compilation. "/ best peer" is ours over the best accurate peer's, above 1 where ours is better: effective samples per
second, for the chain of the Langevin equation steps per second.
The peers get an environment of their own, made at the first run in `benchmarks/.peers` (or `--peers DIR`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from running import THREADS, environment, machine, share_processors, show, table

HERE = Path(__file__).resolve().parent
TIMEOUT = 1800.0  # s, for one process
DENSE = 1024  # largest number of unknowns for kernels with dense covariances

Case = dict[str, Any]


def all_cases(quick: bool) -> list[Case]:
    """The cases, small ones with `quick`."""
    scale = 20 if quick else 1
    base = {
        "chains": 4,
        "warmup": 2000 // scale,
        "steps": 10_000 // scale,
        "repeats": 1 if quick else 3,
        "condition": 1.0,
    }
    sizes = (10, 100) if quick else (10, 100, 1000)
    gaussians = [{**base, "problem": "gaussian", "d": d, "condition": k} for d in sizes for k in (1.0, 1e3)]
    fields = [{**base, "problem": "field", "d": n * n} for n in ((16, 32) if quick else (16, 32, 64, 128))]
    sde = {**base, "problem": "sde", "d": 100, "chains": 1, "warmup": 0, "steps": 1000}
    return [*gaussians, {**base, "problem": "schools", "d": 10}, *fields, sde]


def title(case: Case) -> str:
    """Name of a case, as `--only` and the table know it."""
    return f"{case['problem']} d={case['d']}" + (f" condition {case['condition']:g}" if case["condition"] > 1 else "")


def answers(script: Path, python: str, case: Case, folder: Path) -> list[dict[str, Any]]:
    """What one process says.

    Raises:
        RuntimeError: with the last line that the process said, where it gave no answer.
    """
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu"}
    if "ours" in script.name:
        env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [env.get("PYTHONPATH")])])
    command = [python, str(script), json.dumps(case), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {TIMEOUT:.0f} s") from None
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return lines


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """An answer with its effective sample size and its largest deviation in standard errors."""
    from solvers.sampling.diagnostics import diagnose

    if "file" not in found:
        return found
    with np.load(found["file"]) as stored:
        values, truth = stored["values"], stored["truth"]
    if found["problem"] == "sde":
        # Chains and coordinates are independent: (chains, quantities, d) -> samples of each quantity.
        samples = values.swapaxes(1, 2).reshape(-1, values.shape[1])
        z = np.abs(samples.mean(axis=0) - truth) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))
        return {**found, "z": float(z.max())}
    numbers = diagnose(values).numbers["x"]
    z = np.abs(numbers.mean - truth) / numbers.mcse
    return {**found, "ess": float(np.min([numbers.ess_bulk, numbers.ess_tail])), "z": float(z.max())}


def rows(case: Case, by_code: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """One line per code."""

    def middle(found: list[dict[str, Any]], key: str) -> float | None:
        values = [one[key] for one in found if key in one]
        return median(values) if values else None

    lines, speeds = [], {}
    for code, found in by_code.items():
        seconds, ess, z = (middle(found, key) for key in ("seconds", "ess", "z"))
        gradients = middle(found, "gradients") or middle(found, "solves")
        chains = case["chains"] * case["steps"]
        right = "-" if z is None else ("yes" if z < 4 else f"NO ({z:.0f})")
        counts = right == "yes"
        worth = chains if case["problem"] == "sde" else ess
        speeds[code] = worth / seconds if worth and seconds and counts else None
        lines.append(
            [
                f"{title(case)}: {code}",
                right,
                show(1e3 * ess / gradients if ess and gradients and counts else None, ".3g"),
                show(ess / seconds if ess and seconds and counts else None, ".3g"),
                show(1e6 * seconds / chains if seconds else None, ".3g"),
                show(middle(found, "compile"), ".1f"),
            ]
        )
    best = max((speed for code, speed in speeds.items() if speed and not code.startswith("ours")), default=None)
    for line, (code, speed) in zip(lines, speeds.items(), strict=True):
        line.append(show(speed / best if speed and best and code.startswith("ours") else None, ".2g"))
    return lines


def main() -> int:
    """Run the benchmark; returns 1 where a code gave no answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases, one round")
    parser.add_argument("--rounds", type=int, help="number of turns (default 3; 1 with --quick)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", metavar="DIR", help="the peers' environment")
    parser.add_argument("--python", help="a Python that has the peers, in place of an environment of their own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer to FILE")
    args = parser.parse_args()
    cases = [case for case in all_cases(args.quick) if args.only in title(case)]
    if not cases:
        parser.error(f"no case contains {args.only!r}")
    share_processors()
    python = args.python or environment("langevin", args.peers)
    results: list[dict[str, list]] = [defaultdict(list) for _ in cases]
    errors, versions = [], {}
    for turn in range(args.rounds or (1 if args.quick else 3)):
        for case, result in zip(cases, results, strict=True):
            for script, program in (("ours_langevin.py", sys.executable), ("peers/langevin_peers.py", python)):
                if case["problem"] == "field" and "peers" in script and case["d"] > DENSE:
                    continue  # a dense covariance and its root
                print(f"round {turn + 1}: {title(case)}: {script}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        for found in answers(HERE / script, program, case, Path(folder)):
                            result[found["code"]].append(judged({**found, "problem": case["problem"]}))
                            versions |= found.get("versions", {})
                    except RuntimeError as error:
                        errors.append(f"{title(case)}: {script}: {error}")
    print(machine())
    print(", ".join(f"{name} {number}" for name, number in versions.items()), f"; {THREADS} threads, float32\n")
    head = [
        "case",
        "accurate",
        "ESS / 1000 gradients",
        "ESS / s",
        "us / step and chain",
        "compile s",
        "/ best peer",
    ]
    print(table(head, [row for case, result in zip(cases, results, strict=True) for row in rows(case, result)]))
    if errors:
        print("\nNo answer:", *errors, sep="\n  ")
    if args.json:
        args.json.write_text(json.dumps({"cases": cases, "answers": results, "versions": versions}, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    sys.exit(main())
