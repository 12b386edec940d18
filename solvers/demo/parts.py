"""The parts of the demo and how they are run. A later door adds its part to `PARTS`.

A part is a function (folder, quick) -> `Chapter`; it writes its pictures into the folder and tells its progress.
"""

import time
from collections.abc import Callable
from pathlib import Path

from ..tables import aligned
from .digits import digits_out_of_noise
from .equilibria import equilibria_and_their_derivatives
from .flow import flow_in_a_periodic_box
from .gradient import gradient_and_its_proof
from .page import HEADER, Chapter, write_page
from .recovery import recovery
from .sampling import samples_and_their_worth
from .waves import wave_and_its_exact_solution

PARTS: tuple[Callable[[Path, bool], Chapter], ...] = (
    wave_and_its_exact_solution,
    gradient_and_its_proof,
    recovery,
    flow_in_a_periodic_box,
    equilibria_and_their_derivatives,
    samples_and_their_worth,
    digits_out_of_noise,
)


def run(out: Path, *, quick: bool = False, version: str = "") -> Path:
    """Run all parts, print the table, write pictures and page; returns the path of the page."""
    import jax

    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    chapters = []
    for number, part in enumerate(PARTS, 1):
        print(f"part {number} of {len(PARTS)}: {part.__name__.replace('_', ' ')}", flush=True)
        chapters.append(part(out, quick))
    print("\n" + aligned(HEADER, [row for chapter in chapters for row in chapter.rows]))
    seconds = time.perf_counter() - begin
    device = jax.devices()[0]
    page = write_page(
        out,
        "What solvers computed",
        "Waves and flows are simulated, equilibria found, densities sampled; what they depend on is reached by "
        "derivatives. Numbers with a known true value stand beside it.",
        chapters,
        f"solvers {version}, JAX {jax.__version__} on {device.device_kind} ({device.platform}); "
        f"{seconds:.0f} s including compilation.",
    )
    print(f"\n{seconds:.0f} s; the pictures are in {out}/, open {page}")
    return page
