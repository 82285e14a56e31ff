"""Design-space sweeps: points of a study, evaluated on many processes, kept as Parquet parts, and what they teach."""
