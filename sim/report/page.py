"""The HTML report: one file that needs no network, and the fragment that notebooks show. All names are escaped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import ranges, words
from .figure_style import CONFIG
from .figures import compare_figure, figure, memory_figure, roofline_figure
from .files import atomic_write_text
from .page_style import CSS, SCRIPT
from .result import OperatorRow, RunResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_FRAGMENT_ROWS: Final = 8
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Content security policy: the page runs what it holds and fetches nothing."""

_STRONGEST: Final = 10
_ENTRY_POINTS: Final = ("effsim", "effsim.exe", "__main__.py")


def fragment(result: RunResult) -> str:
    """What a notebook shows: notes, headline, memory, bottleneck and the longest operators, as HTML without script."""
    rows = words.by_time(result.operators)
    out = [f"<div><strong>{_e(words.title(result))}</strong><br>"]
    out += [f"<em>{_e(note)}</em><br>" for note in result.notes]
    out += [
        f"{_e(line.label)}: <strong>{_e(line.value)}</strong> {_e(line.aside)}<br>" for line in words.headlines(result)
    ]
    shares = ", ".join(f"{name} {words.percent(share)}" for name, share in result.bound.items())
    out.append(f"memory: {_e(words.memory_line(result))}<br>limited by: {_e(shares)}</div>")
    head = "".join(f"<th>{name}</th>" for name in ("operator", "runs", "time", "bound", "of roof"))
    out.append(f"<table><thead><tr>{head}</tr></thead><tbody>")
    for row in rows[:_FRAGMENT_ROWS]:
        cells = (row.name, str(row.count), words.seconds(row.time_s), row.bound, words.efficiency(row))
        out.append(f"<tr>{''.join(f'<td>{_e(cell)}</td>' for cell in cells)}</tr>")
    if len(rows) > _FRAGMENT_ROWS:
        rest = sum(row.time_s for row in rows[_FRAGMENT_ROWS:])
        more = f"{len(rows) - _FRAGMENT_ROWS} more"
        out.append(f"<tr><td>{more}</td><td></td><td>{_e(words.seconds(rest))}</td><td></td><td></td></tr>")
    out.append("</tbody></table>")
    return "".join(out)


def write_page(results: RunResult | Sequence[RunResult], path: str | Path, *, command: str | None = None) -> None:
    """Write a self-contained HTML report of one run, or of one workload on several machines.

    *command* is what the page says to repeat it; without it, the command line of this process if that is effsim's.

    Raises:
        DataError: the file cannot be written.
    """
    atomic_write_text(path, page(results, command=command))


def page(results: RunResult | Sequence[RunResult], *, command: str | None = None) -> str:
    """The report as text."""
    runs = [results] if isinstance(results, RunResult) else list(results)
    figures = Figures()
    body = _single(runs[0], figures) if len(runs) == 1 else _several(runs, figures)
    body += _repeat(runs, command if command is not None else own_command())
    title = words.title(runs[0]) if len(runs) == 1 else f"{words.plain(runs[0].workload)} on {len(runs)} machines"
    return document(title, body)


def document(title: str, body: Sequence[str]) -> str:
    """A page with everything it needs around *body*."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{_e(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        f"{''.join(body)}\n</main><script>{SCRIPT}</script></body></html>\n"
    )


class Figures:
    """Puts figures into the page; the first one brings plotly.js with it."""

    def __init__(self) -> None:
        self._count = 0

    def html(self, drawn: Figure, label: str) -> str:
        """A figure as HTML, with a label for those who cannot see it."""
        self._count += 1
        inside: str = drawn.to_html(
            full_html=False,
            include_plotlyjs=self._count == 1,
            config=CONFIG,
            div_id=f"figure-{self._count}",
            default_width="100%",
        )
        return f'<div class="figure" role="img" aria-label="{_e(label)}">{inside}</div>'


def _e(text: str) -> str:
    return escape(words.plain(text))


def _single(result: RunResult, figures: Figures) -> list[str]:
    out = [f"<h1>{_e(words.title(result))}</h1>", f'<p class="soft">{_e(words.setup(result))}</p>', _notes([result])]
    out += [_cards(result), *(f'<p class="soft">{_e(line)}</p>' for line in ranges.evidence_lines(result))]
    out += ["<h2>What limits it</h2>", _shares(result.bound)]
    out += ["<h2>Operators under the roofs of one device</h2>", figures.html(figure(result, "roofline"), "Roofline")]
    out.append(_flat_note(result))
    out += ["<h2>Time by operator</h2>", figures.html(figure(result, "operators"), "Time by operator and resource")]
    if result.energy_j is not None:
        out += [
            "<h2>Energy by operator</h2>",
            figures.html(figure(result, "energy"), "Energy by operator and idle power"),
        ]
    out += ["<h2>Memory of one device</h2>", f"<p>{_e(words.memory_line(result))}</p>"]
    out += [figures.html(figure(result, "memory"), "Memory of one device"), _memory_table(result)]
    if result.timeline.slices:
        out += ["<h2>Timeline of the first step</h2>"]
        out += [f'<p class="soft">{_e(note)}</p>' for note in result.timeline.notes]
        out.append(figures.html(figure(result, "timeline"), "Timeline of the first step"))
    out += ["<h2>Operators</h2>", _operator_table(result)]
    if result.sensitivity:
        out += ["<h2>What would change the time</h2>", figures.html(figure(result, "sensitivity"), "Sensitivities")]
        lines = (f"<li>{_e(words.sensitivity_sentence(row))}</li>" for row in words.strongest(result, _STRONGEST))
        out.append(f"<details><summary>as text</summary><ul>{''.join(lines)}</ul></details>")
    out += ["<h2>Cost and energy</h2>", f"<p>{_e(words.cost_line(result))}</p><p>{_e(words.energy_line(result))}</p>"]
    return [*out, _assumptions(result)]


def _several(runs: list[RunResult], figures: Figures) -> list[str]:
    first = runs[0]
    out = [f"<h1>{_e(first.workload)} on {len(runs)} machines</h1>", f'<p class="soft">engine {_e(first.engine)}</p>']
    out += [_notes(runs), "<h2>In numbers</h2>", _compare_table(runs)]
    out += ["<h2>Time by resource</h2>", figures.html(compare_figure(runs), "Time by resource on each machine")]
    reasons = "".join(f"<li>{_e(words.difference_sentence(first, other))}</li>" for other in runs[1:])
    out.append(f"<h2>Why they differ</h2><p>Against {_e(first.hardware)}:</p><ul>{reasons}</ul>")
    out += ["<h2>Rooflines</h2>", figures.html(roofline_figure(runs), "Rooflines of the machines")]
    out += ["<h2>Memory of one device</h2>", figures.html(memory_figure(runs), "Memory of one device on each machine")]
    for run in runs:
        out += [f"<h2>Operators on {_e(run.hardware)}</h2>", _operator_table(run), _assumptions(run, level=3)]
    return out


def _notes(runs: Iterable[RunResult]) -> str:
    lines = dict.fromkeys(note for run in runs for note in run.notes)
    return "".join(f'<p class="note"><strong>Note:</strong> {_e(note)}</p>' for note in lines)


def _cards(result: RunResult) -> str:
    cards = [(line.label, line.value, line.aside) for line in words.headlines(result)]
    used, capacity = float(result.memory["used_bytes"]), float(result.memory["capacity_bytes"])
    fits = "fits" if result.memory.get("fits", used <= capacity) else "does not fit"
    cards.append(("Memory of one device", words.gib(used), f"of {words.gib(capacity)}: {fits}"))
    cards.append(
        ("Cost", words.dollars(result.cost_usd), "unknown: no price" if result.cost_usd is None else "all devices")
    )
    inner = "".join(
        f'<div class="card"><span>{_e(label)}</span><b>{_e(value)}</b><span>{_e(aside)}</span></div>'
        for label, value, aside in cards
    )
    return f'<div class="cards">{inner}</div>'


def _shares(bound: Mapping[str, float]) -> str:
    shares = sorted(bound.items(), key=lambda item: -item[1])
    rows = "".join(
        f'<tr><td>{_e(name)}</td><td class="n">{words.percent(share)}</td>'
        f'<td style="width:60%"><span class="track"><i style="width:{100.0 * share:.2f}%"></i></span></td></tr>'
        for name, share in shares
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _flat_note(result: RunResult) -> str:
    """Operators that the plot cannot show, because a logarithmic axis has no zero."""
    flat = [p.row.name for p in words.roof_points(result) if p.intensity <= 0.0]
    if not flat:
        return ""
    return f'<p class="soft">Without arithmetic, so not in the plot: {_e(", ".join(dict.fromkeys(flat)))}.</p>'


def _memory_table(result: RunResult) -> str:
    rows = "".join(
        f'<tr><td>{_e(label)}</td><td class="n">{words.gib(size)}</td></tr>'
        for label, size in words.memory_parts(result)
    )
    return f"<details><summary>in numbers</summary><table><tbody>{rows}</tbody></table></details>"


_COLUMNS: Final = (
    ("operator", ""),
    ("kind", ""),
    ("runs", "n"),
    ("time", "n"),
    ("90 %", "n"),
    ("evidence", ""),
    ("share", "n"),
    ("bound", ""),
    ("of roof", "n"),
    ("FLOP", "n"),
    ("bytes", "n"),
)


def _operator_table(result: RunResult) -> str:
    """Every operator, sortable by a click on a heading; FLOPs and bytes of all devices."""
    many = len(result.phases) > 1
    columns = (("phase", ""), *_COLUMNS) if many else _COLUMNS
    head = "".join(f'<th class="{kind}"><button type="button">{name}</button></th>' for name, kind in columns)
    rows = "".join(_operator_row(row, result.time_s, many) for row in words.by_time(result.operators))
    caption = '<p class="soft">FLOPs (a multiply-add is 2) and bytes of all devices; a click on a heading sorts.</p>'
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'{caption}<div class="scroll">{table}</div>'


def _operator_row(row: OperatorRow, whole: float, many: bool) -> str:
    share = row.time_s / whole if whole else 0.0
    reached = row.roofline_s / row.time_s if row.time_s else 0.0
    numbers = (
        (float(row.count), f"{row.count}"),
        (row.time_s, words.seconds(row.time_s)),
        ((row.time_high_s or row.time_s) / row.time_s if row.time_s else 0.0, ranges.percent_ends(row)),
    )
    tail = (
        (reached, words.efficiency(row)),
        (row.flops, words.flop_count(row.flops)),
        (row.bytes_moved, words.byte_count(row.bytes_moved)),
    )
    phase = f"<td>{_e(row.phase)}</td>" if many else ""
    name = f'<td class="name">{_e(row.name)}</td><td>{_e(row.kind)}</td>'
    middle = f"<td>{_e(row.evidence or '–')}</td>{_numbers([(share, words.percent(share))])}<td>{_e(row.bound)}</td>"
    return f"<tr>{phase}{name}{_numbers(numbers)}{middle}{_numbers(tail)}</tr>"


def _numbers(cells: Iterable[tuple[float, str]]) -> str:
    return "".join(f'<td class="n" data-v="{value!r}">{_e(text)}</td>' for value, text in cells)


def _assumptions(result: RunResult, level: int = 2) -> str:
    """Every number that is no datasheet figure, with its kind and source; those that matter first."""
    if not result.assumptions:
        return ""
    rows = "".join(
        f'<tr><td class="name"><code>{_e(a.path)}</code></td><td class="n">{a.value:.4g}</td><td>{_e(a.kind)}</td>'
        f'<td class="n">{"–" if a.elasticity is None else f"{a.elasticity:+.3f}".replace("-", "−")}</td>'
        f'<td class="source">{_e(a.source)}</td></tr>'
        for a in result.assumptions
    )
    head = '<th>parameter</th><th class="n">value (SI)</th><th>kind</th><th class="n">elasticity</th><th>source</th>'
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    lead = (
        '<p class="soft">Numbers that are no datasheet figures. Elasticity: the time changes by so many percent for '
        "one percent more; a dash means that the time does not answer to it.</p>"
    )
    return f"<h{level}>Numbers it leans on</h{level}>{lead}{table}"


def _compare_table(runs: list[RunResult]) -> str:
    first = runs[0]
    names = ("machine", "devices", "time", "90 %", "speed", "memory of a device", "cost", "limited by")
    head = "".join(f'<th class="{"" if i in (0, 7) else "n"}">{name}</th>' for i, name in enumerate(names))
    rows = []
    for run in runs:
        used, capacity = float(run.memory["used_bytes"]), float(run.memory["capacity_bytes"])
        largest = max(run.bound.items(), key=lambda item: item[1], default=("–", 0.0))
        speed = f"{first.time_s / run.time_s:.2f}×" if run.time_s else "–"
        interval = ranges.ends(run.time_s, run.time_low_s, run.time_high_s).strip(" ()") or "–"
        memory = f"{words.gib(used)} of {words.gib(capacity)}"
        cells = (f"{run.devices}", words.seconds(run.time_s), interval, speed, memory)
        numbers = "".join(f'<td class="n">{_e(cell)}</td>' for cell in (*cells, words.dollars(run.cost_usd)))
        limit = f"{largest[0]} {words.percent(largest[1])}"
        rows.append(f'<tr><td class="name">{_e(run.hardware)}</td>{numbers}<td>{_e(limit)}</td></tr>')
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def own_command() -> str:
    """The command line of this process, if it is effsim's own."""
    if Path(sys.argv[0]).name not in _ENTRY_POINTS:
        return ""
    return shlex.join(["effsim", *sys.argv[1:]])


def _repeat(runs: list[RunResult], command: str) -> list[str]:
    from ..version import VERSION

    lead = "<h2>How to repeat this</h2>"
    if command:
        lead += f"<pre>{_e(command)}</pre>"
    names = ", ".join(f"{run.hardware}" for run in runs)
    told = f"effsim {VERSION}, engine {runs[0].engine}, workload “{runs[0].workload}”, hardware “{names}”"
    return [lead, f'<p class="soft">{_e(told)}. Same inputs, same numbers.</p>']
