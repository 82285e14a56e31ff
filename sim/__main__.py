"""``python -m effsim``."""

from .cli import main

main()
