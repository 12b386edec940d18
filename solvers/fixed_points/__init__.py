"""Fixed points, roots and steady states: one method per file, one loop, one implicit rule."""
