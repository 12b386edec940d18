"""Langevin sampling: kernels, targets with exact answers, bijectors, diagnostics."""
