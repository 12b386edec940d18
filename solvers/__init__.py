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
    "simulate_ode": "core.ode",
    "OdeSolution": "core.ode",
    "StoreAll": "core.adjoint",
    "Checkpoint": "core.adjoint",
    "plan": "core.budget",
    "Plan": "core.budget",
    "Mean": "core.observe",
    "Peak": "core.observe",
    "Fourier": "core.observe",
    "eigsh": "core.spectra",
    "Eigenpairs": "core.spectra",
    "svds": "core.spectra",
    "SingularTriplets": "core.spectra",
    "trace": "core.stochastic_trace",
    "TraceEstimate": "core.stochastic_trace",
    "HessianProduct": "core.products",
    "JacobianProduct": "core.products",
    "Metric": "fixed_points.manifold",
    "Geodesic": "fixed_points.manifold",
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
    "fixed_point": "fixed_points.doors",
    "root": "fixed_points.doors",
    "steady_state": "fixed_points.steady",
    "periodic_orbit": "fixed_points.orbit",
    "Orbit": "fixed_points.orbit",
    "Handover": "fixed_points.handover",
    "Solution": "fixed_points.solution",
    "Stats": "fixed_points.solution",
    "Picard": "fixed_points.picard",
    "Anderson": "fixed_points.anderson",
    "Newton": "fixed_points.newton",
    "NewtonKrylov": "fixed_points.newton_krylov",
    "Adjoint": "core.implicit_rule",
    "implicit_value_and_grad": "fixed_points.certified",
    "GradientCertificate": "fixed_points.certified",
    "implicit": "core.implicit_rule",
    "Gmres": "core.krylov",
    "Cg": "core.short_recurrences",
    "Minres": "core.short_recurrences",
    "BiCgStab": "core.short_recurrences",
    "linear_solve": "core.linear",
    "LinearSolution": "core.linear",
    "Broyden": "fixed_points.broyden",
    "PseudoTransient": "fixed_points.pseudo_transient",
    "PeriodicNavierStokes": "pde.periodic",
    "FlowState": "pde.periodic_forms",
    "Kolmogorov": "pde.forcing",
    "LinearForcing": "pde.forcing",
    "Semilinear": "pde.semilinear",
    "Symbols": "pde.semilinear",
    "Advection": "pde.linear_equations",
    "Diffusion": "pde.linear_equations",
    "AdvectionDiffusion": "pde.linear_equations",
    "Dispersion": "pde.linear_equations",
    "HyperDiffusion": "pde.linear_equations",
    "PeriodicWave": "pde.linear_equations",
    "Burgers": "pde.transport_equations",
    "KortewegDeVries": "pde.transport_equations",
    "KuramotoSivashinsky": "pde.transport_equations",
    "NonlinearSchroedinger": "pde.transport_equations",
    "FisherKPP": "pde.pattern_equations",
    "AllenCahn": "pde.pattern_equations",
    "CahnHilliard": "pde.pattern_equations",
    "GrayScott": "pde.pattern_equations",
    "SwiftHohenberg": "pde.pattern_equations",
    "random_field": "pde.fields",
    "sine_sum": "pde.fields",
    "gaussian_blobs": "pde.fields",
    "Modes": "core.fourier",
    "resample": "core.fourier",
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
