"""Accuracy."""

from __future__ import annotations

from typing import Any, Final

from dash import html

from ..app import Page
from ..pickers import Uploads
from ..service import Service
from ..view import View


def layout(service: Service, view: View, uploads: Uploads) -> Any:
    """The page for a view."""
    return [html.H1("Accuracy")]


def register(app: Any, service: Service) -> None:
    """The callbacks of the page."""


PAGE: Final = Page("/accuracy", "Accuracy", layout, register)
