"""Three readings of the same kernels: roofline, analytic, events."""
