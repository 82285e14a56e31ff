"""Measured hardware files: microbenchmarks of this machine, or a fit of a file to a table of measured kernels.

:mod:`.timing` takes repeatable times on a noisy machine, :mod:`.machine` reads what the operating system knows,
:mod:`.cpu_benchmarks` and :mod:`.cuda` say what is run, :mod:`.cpu` turns times into the fields of a hardware file, and
:mod:`.fit` moves named parameters of an existing file towards a kernel table. :mod:`.recipe` makes the fitted numbers
of a bundled file from the tables, split, bounds and order that a recipe names (:mod:`.search`, :mod:`.recipe_rows`),
and :mod:`.entries` writes them into its text.
"""
