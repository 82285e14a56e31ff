"""Pictures of the accuracy page: how predictions spread around the measurements, by kernel and by duration, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from .kernels import BUCKETS, GroupScore

LOW, HIGH = 0.5, 2.0
TICKS: Final = (0.5, 0.67, 0.8, 0.9, 1.0, 1.11, 1.25, 1.5, 2.0)
UNNAMED: Final = (0.9, 1.11)
"""Lines without a number: there is no room for one."""
LABEL_W, RANGE_W, CELL_W, ROW_H, HEAD_H, GAP = 340, 360, 72, 24, 74, 24
WIDTH: Final = LABEL_W + RANGE_W + GAP + CELL_W * len(BUCKETS) + 16
WORST_SHOWN: Final = 0.5
"""Median error at which the colour of a cell is full."""

STYLE: Final = """<style>
text{font:12px system-ui,sans-serif;fill:#222}.m{fill:#666}.t{font-size:15px;font-weight:600}
.g{stroke:#ccc;stroke-width:1}.o{stroke:#666;stroke-width:1.5}.w{stroke:#3b7dd8;stroke-width:2}
.b{fill:#3b7dd8}.d{fill:#fff;stroke:#14427d;stroke-width:2}.c{fill:#c8433f}
@media(prefers-color-scheme:dark){text{fill:#e6e6e6}.m{fill:#a5a5a5}.g{stroke:#444}.o{stroke:#aaa}
.w{stroke:#6fa8f5}.b{fill:#6fa8f5}.d{fill:#111;stroke:#cfe1fb}.c{fill:#e2685f}}
</style>"""


def ratio_x(ratio: float) -> float:
    """Where predicted / measured stands on the logarithmic axis; beyond its ends, at the end.

    >>> ratio_x(0.5), ratio_x(1.0), ratio_x(2.0), ratio_x(9.0)
    (340.0, 520.0, 700.0, 700.0)
    """
    share = math.log(min(HIGH, max(LOW, ratio)) / LOW) / math.log(HIGH / LOW)
    return LABEL_W + RANGE_W * share


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{shown}>{escape(words)}</text>'


def _axis(rows: int) -> list[str]:
    bottom = HEAD_H + rows * ROW_H
    out = []
    for tick in TICKS:
        x, kind = ratio_x(tick), "o" if tick == 1.0 else "g"
        out.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD_H - 6}" y2="{bottom}"/>')
        if tick not in UNNAMED:
            out.append(_text(x, HEAD_H - 12, f"×{tick:g}", "middle", "m"))
    for i, name in enumerate(BUCKETS):
        out.append(_text(_cell_x(i) + CELL_W / 2, HEAD_H - 12, name, "middle", "m"))
    middle = LABEL_W + RANGE_W / 2
    out.append(_text(middle, HEAD_H - 30, "predicted / measured: 5–95 %, 25–75 %, median", "middle"))
    out.append(_text(_cell_x(0) + CELL_W * len(BUCKETS) / 2, HEAD_H - 30, "median |error| by measured time", "middle"))
    return out


def _cell_x(index: int) -> float:
    return LABEL_W + RANGE_W + GAP + CELL_W * index


def _range(group: GroupScore, y: float) -> list[str]:
    low, first, half, third, high = (ratio_x(ratio) for ratio in group.ratios)
    middle = y + ROW_H / 2
    tip = (
        f"{group.label}: n {group.score.n}, median error {100 * group.score.median:.1f} %, "
        f"p90 {100 * group.score.p90:.1f} %, bias {100 * group.score.bias:+.1f} %; "
        f"roofline {100 * group.roofline.median:.0f} %, rule of thumb {100 * group.naive.median:.0f} %"
    )
    return [
        f"<g><title>{escape(tip)}</title>",
        f'<line class="w" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<rect class="b" x="{first:.1f}" y="{middle - 5}" width="{max(1.0, third - first):.1f}" height="10" rx="2"/>',
        f'<circle class="d" cx="{half:.1f}" cy="{middle}" r="4.5"/>',
        "</g>",
    ]


def _cell(group: GroupScore, y: float) -> list[str]:
    x = _cell_x(BUCKETS.index(group.bucket))
    opacity = min(1.0, group.score.median / WORST_SHOWN) ** 0.8 * 0.75
    box = f'x="{x + 1:.1f}" y="{y + 2}" width="{CELL_W - 2}" height="{ROW_H - 4}" rx="3"'
    return [
        f'<rect class="c" {box} fill-opacity="{opacity:.2f}"><title>n {group.score.n}</title></rect>',
        _text(x + CELL_W / 2, y + 16, f"{100 * group.score.median:.0f} %", "middle"),
    ]


def accuracy_svg(groups: Sequence[GroupScore], title: str) -> str:
    """An SVG document: one line a kernel with the spread of its ratio, and its median error by duration.

    Args:
        groups: of one GPU, as :func:`effsim.validation.kernels.score` orders them.
        title: headline.

    Returns:
        The document; ratios beyond half and double stand at the edge.
    """
    labels = list(dict.fromkeys(group.label for group in groups))
    height = HEAD_H + ROW_H * len(labels) + 12
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        STYLE,
        _text(8, 24, title, kind="t"),
        *_axis(len(labels)),
    ]
    for group in groups:
        y = HEAD_H + ROW_H * labels.index(group.label)
        if group.bucket == "all":
            out.append(_text(8, y + 16, f"{group.label} ({group.score.n})"))
            out += _range(group, y)
        else:
            out += _cell(group, y)
    return "\n".join([*out, "</svg>"]) + "\n"


def write_charts(groups: Sequence[GroupScore], folder: Path) -> list[Path]:
    """One picture a GPU in *folder* (created), each replaced in one step; returns the files, by GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for hardware in sorted({group.hardware for group in groups}):
        path = folder / f"accuracy_{hardware}.svg"
        draft = path.with_name(f".{path.name}.part")
        draft.write_text(accuracy_svg([g for g in groups if g.hardware == hardware], hardware), encoding="utf-8")
        draft.replace(path)
        out.append(path)
    return out
