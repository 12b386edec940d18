"""Langevin sampling: kernels, targets with exact answers, bijectors, diagnostics."""

from . import targets as targets
