"""The ground floor: the loop, its adjoints, checks and grids. Knows no physics and no statistics."""
