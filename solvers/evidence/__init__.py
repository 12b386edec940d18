"""What `solvers validate` compares: our numbers with theory and with the literature, one function per row."""
