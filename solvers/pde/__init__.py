"""Partial differential equations: grids, boundaries, operators and the equations themselves."""
