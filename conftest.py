"""What every test and doctest shares. It stands at the root so that `pytest solvers/core` sees it as `pytest` does."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

# One compilation cache for the run. The first process makes it (readable by its owner alone) and takes it away at the
# end; the workers of pytest-xdist and the programs that tests start inherit its name. All of this before jax is read.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="solvers-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of a run is compilation of small programs: without LLVM's optimisations it takes two thirds of the time, and the
# older emitters of loops, which jaxlib 0.10 still has, save another third. What XLA itself decides, fusion and memory,
# stays as it is; `.ci/run` runs the slow tests with everything switched on.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1" and version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

# Tolerances are derived for float64; a test of float32 says so in its arrays.
jax.config.update("jax_enable_x64", True)

# Shapes and types of all annotated arguments are checked in tests only. The hook must stand before the first import.
install_import_hook("solvers", "beartype.beartype")

# A first example compiles, so no deadline; the same examples in every run.
hypothesis.settings.register_profile("solvers", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("solvers")


@pytest.fixture(scope="module", autouse=True)
def forget_programs(request):
    """Programs compiled for one file of tests serve no other, and together they fill the memory."""
    yield
    if "tests" in request.path.parts:
        jax.clear_caches()
