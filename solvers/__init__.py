"""Differentiable solvers for JAX: simulate, differentiate through, and invert.

The door: every public name once. Names are imported when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Grid": "core.grid",
    "simulate": "core.loop",
    "Simulation": "core.loop",
    "StoreAll": "core.adjoint",
    "Checkpoint": "core.adjoint",
    "plan": "core.budget",
    "Plan": "core.budget",
    "Mean": "core.observe",
    "Peak": "core.observe",
    "Fourier": "core.observe",
    "run": "core.long_run",
    "LongRun": "core.long_run",
    "Moments": "core.sinks",
    "BatchMeans": "core.sinks",
    "Quantiles": "core.sinks",
    "Draws": "core.record",
    "CheckpointError": "core.checkpoint_file",
    "sample": "sampling.chains",
    "Samples": "sampling.chains",
    "AdaptStep": "sampling.warmup",
    "AdaptDiagonal": "sampling.warmup",
    "AdaptLowRank": "sampling.warmup",
    "diagnose": "sampling.diagnostics",
    "Status": "core.status",
    "SolverError": "core.status",
    "check_gradient": "core.verify",
    "check_adjoint": "core.verify",
    "check_order": "core.verify",
    "Absorbing": "pde.boundary",
    "Free": "pde.boundary",
    "Rigid": "pde.boundary",
    "Periodic": "pde.boundary",
    "Wave": "pde.wave",
    "WaveState": "pde.wave",
    "Receivers": "pde.points",
    "ricker": "pde.wavelets",
    "points_per_wavelength": "pde.wavelets",
    "dispersion": "pde.wavelets",
    "born": "pde.linearised",
    "gauss_newton": "pde.linearised",
    "Ula": "sampling.overdamped",
    "Tamed": "sampling.overdamped",
    "LeimkuhlerMatthews": "sampling.overdamped",
    "Mala": "sampling.mala",
    "Kinetic": "sampling.kinetic",
    "Baoab": "sampling.kinetic",
    "Obabo": "sampling.kinetic",
    "Ubu": "sampling.kinetic",
    "Hmc": "sampling.hamiltonian",
    "Nuts": "sampling.hamiltonian",
    "Minibatch": "sampling.stochastic",
    "Sgld": "sampling.stochastic",
    "PreconditionedSgld": "sampling.stochastic",
    "Pcn": "sampling.function_space",
    "InfinityMala": "sampling.function_space",
    "MaternField": "sampling.fields",
    "Unconstrained": "sampling.bijectors",
    "Real": "sampling.bijectors",
    "Positive": "sampling.bijectors",
    "Interval": "sampling.bijectors",
    "Simplex": "sampling.bijectors",
    "Ordered": "sampling.bijectors",
    "CovarianceCholesky": "sampling.bijectors",
    "CorrelationCholesky": "sampling.bijectors",
    "ParallelTempering": "sampling.tempering",
    "pathwise": "sampling.derivatives",
    "sensitivity": "sampling.derivatives",
    "Sensitivity": "sampling.derivatives",
    "targets": "sampling",
    "LeastSquares": "sampling.density",
    "IdentityMetric": "sampling.metric",
    "DiagonalMetric": "sampling.metric",
    "LowRankMetric": "sampling.metric",
}

__all__ = ["__version__", "plot", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    elif name == "plot":
        value = importlib.import_module(".plot", __name__)
    else:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
