"""Memory bandwidth of this machine, with two threads: what bounds every explicit wave solver.

Two loops over arrays far larger than the caches:

- triad: `a = b + s c` in float64, counted as STREAM does, 24 bytes per element. The processor also reads `a` before it
  writes it, so the memory moves up to a third more than that.
- leapfrog: `w = 2 u - w + m u` in float32, 16 bytes per element: the traffic of a wave step without its stencil. Here
  the array that is written was read, and the count is what the memory moves.

Run as a program, it prints one line of JSON. Without a C compiler NumPy measures the triad, in one thread and with
blocks that stay in cache between its two operations.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCE = r"""
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#define REPEATS 12

static double now(void) { return omp_get_wtime(); }

int main(int argc, char **argv) {
  const size_t n = (size_t)strtoull(argv[1], NULL, 10);
  double *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b), *c = malloc(n * sizeof *c);
  if (!a || !b || !c) return 1;
  double triad = 1e30, leapfrog = 1e30;
  /* The first touch decides where a page lies: same schedule as the loops below. */
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < n; i++) { a[i] = 0.0; b[i] = 1.0; c[i] = 2.0; }
  for (int k = 0; k < REPEATS; k++) {
    const double scale = 0.5 + k, start = now();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) a[i] = b[i] + scale * c[i];
    const double seconds = now() - start;
    if (seconds < triad) triad = seconds;
  }
  double check = a[n / 2];
  /* The same memory, as twice as many floats. */
  float *w = (float *)a, *u = (float *)b, *m = (float *)c;
  const size_t half = 2 * n;
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < half; i++) { w[i] = 0.0f; u[i] = 1.0f; m[i] = 0.25f; }
  for (int k = 0; k < REPEATS; k++) {
    const double start = now();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < half; i++) w[i] = 2.0f * u[i] - w[i] + m[i] * u[i];
    const double seconds = now() - start;
    if (seconds < leapfrog) leapfrog = seconds;
  }
  check += w[n / 2];
  printf("{\"triad\": %.6g, \"leapfrog\": %.6g, \"check\": %.6g}\n", 24.0 * n / triad / 1e9,
         16.0 * half / leapfrog / 1e9, check);
  return 0;
}
"""


def measure(elements: int = 2**25, threads: int = 2) -> dict[str, Any]:
    """Measure the bandwidth, GB/s; the best of twelve passes.

    Args:
        elements: Length of each of the three float64 arrays.
        threads: Number of OpenMP threads.

    Returns:
        "triad" and "leapfrog" in GB/s, and "how": "C" or "numpy". NumPy gives no "leapfrog".
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return {"triad": _numpy_triad(elements), "how": "numpy"}
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "triad.c"), Path(folder, "triad")
        source.write_text(SOURCE)
        flags = ["-O3", "-march=native", "-fopenmp"]
        try:
            subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True, capture_output=True)
        except subprocess.CalledProcessError:
            return {"triad": _numpy_triad(elements), "how": "numpy"}
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true"}
        out = subprocess.run([str(program), str(elements)], check=True, capture_output=True, text=True, env=env)
    answer = json.loads(out.stdout)
    return {"triad": answer["triad"], "leapfrog": answer["leapfrog"], "how": "C"}


def _numpy_triad(elements: int) -> float:
    import numpy as np

    a, b, c = np.zeros(elements), np.ones(elements), np.full(elements, 2.0)
    block = 2**13
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for i in range(0, elements, block):
            part = slice(i, i + block)
            np.multiply(c[part], 0.5, out=a[part])
            a[part] += b[part]
        best = min(best, time.perf_counter() - start)
    return 24.0 * elements / best / 1e9


if __name__ == "__main__":
    print(json.dumps(measure()))
