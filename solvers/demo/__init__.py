"""What `solvers demo` runs: parts that compute something whose truth is known, and show it."""
