"""``python -m effsim.cli``."""

from . import main

main()
