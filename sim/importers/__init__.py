"""Foreign formats to workloads."""
