"""The dashboard: the public functions of effsim behind pages that a browser shows. No physics is here.

``app`` puts pages into one Dash application; ``view`` is what an address says; ``shelf`` holds bundled names and
uploads; ``service`` asks the public functions, confined to both; ``jobs`` and ``work`` are long work in processes of
its own; ``parts`` are components that pages share; ``server`` listens.
"""
