"""Predicted against measured as a picture: a log-log scatter in SVG, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from effsim.units import format_quantity

SIZE: Final = 560
MARGIN: Final = 70
COLOURS: Final = ("#3b7dd8", "#d9822b", "#2e9e6b", "#b05cc4", "#c8433f", "#7a8793", "#8a6d3b", "#1f9fb4")

Point = tuple[str, str, float, float]
"""Group, name, measured and predicted, both positive."""


def scatter_svg(points: Sequence[Point], title: str, dimension: str = "time") -> str:
    """An SVG document: one dot a point with its name as tooltip, the diagonal, and a band of 20 % around it."""
    low = math.floor(math.log10(min(min(m, p) for _, _, m, p in points)))
    high = math.ceil(math.log10(max(max(m, p) for _, _, m, p in points)))
    span = SIZE - 2 * MARGIN

    def at(value: float) -> float:
        return MARGIN + (math.log10(value) - low) / (high - low) * span

    def text(x: float, y: float, words: str, anchor: str = "middle", turn: str = "") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(words)}</text>'

    groups = list(dict.fromkeys(group for group, *_ in points))
    body = [text(SIZE / 2, 26, title)]
    for power in range(low, high + 1):
        x, words = at(10.0**power), format_quantity(10.0**power, dimension)
        y = SIZE - x
        line = 'stroke="#8888" stroke-width="0.6"'
        body += [
            f'<line x1="{x:.1f}" y1="{MARGIN}" x2="{x:.1f}" y2="{SIZE - MARGIN}" {line}/>',
            f'<line x1="{MARGIN}" y1="{y:.1f}" x2="{SIZE - MARGIN}" y2="{y:.1f}" {line}/>',
            text(x, SIZE - MARGIN + 18, words),
            text(MARGIN - 8, y + 4, words, "end"),
        ]
    step = math.log10(1.2) / (high - low) * span
    for shift, dash in ((0.0, ""), (step, ' stroke-dasharray="4 4"'), (-step, ' stroke-dasharray="4 4"')):
        a, b = MARGIN + max(0.0, -shift), SIZE - MARGIN - max(0.0, shift)
        ends = f'x1="{a:.1f}" y1="{SIZE - a - shift:.1f}" x2="{b:.1f}" y2="{SIZE - b - shift:.1f}"'
        body.append(f'<line {ends} stroke="#888"{dash}/>')
    for group, name, measured, predicted in points:
        tip = f"{name}: {100 * (predicted / measured - 1):+.0f} %"
        where = f'cx="{at(measured):.1f}" cy="{SIZE - at(predicted):.1f}"'
        body.append(f'<circle {where} r="4" {_ink(groups.index(group))}><title>{escape(tip)}</title></circle>')
    for i, group in enumerate(groups):
        y = MARGIN + 16 + 17 * i
        body.append(f'<circle cx="{MARGIN + 14}" cy="{y - 4}" r="4" {_ink(i)}/>')
        body.append(text(MARGIN + 24, y, group, "start"))
    middle = SIZE / 2
    body.append(text(middle, SIZE - 20, "measured"))
    body.append(text(18, middle, "predicted", turn=f' transform="rotate(-90 18 {middle})"'))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" font-family="sans-serif" font-size="12"'
    )
    return "\n".join([f'{head} fill="#7a8793">', *body, "</svg>"]) + "\n"


def _ink(group: int) -> str:
    """A colour, filled for the first groups and as a ring for those beyond the palette."""
    colour = COLOURS[group % len(COLOURS)]
    return (
        f'fill="{colour}" fill-opacity="0.75"'
        if group < len(COLOURS)
        else f'fill="none" stroke="{colour}" stroke-width="2"'
    )


def write_scatter(points: Sequence[Point], title: str, path: Path) -> None:
    """Write the picture; replaces the file in one step."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(scatter_svg(points, title), encoding="utf-8")
    draft.replace(path)
