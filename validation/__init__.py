"""Predictions against measurements of real hardware.

The measurements are not part of the package: :func:`effsim.validation.tables.data_folder` finds a folder of public
tables (see there for the layout), :mod:`effsim.validation.kernels` turns their rows into rows of effsim's kernel table
and scores them, :mod:`effsim.validation.blocks` compares a whole transformer block operator by operator, and
:mod:`effsim.validation.page` writes the result as a page.
"""
