"""The figure of a run's energy: what each operator adds to idle power, and idle power itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .figure_style import BAR_PX, FRAME_PX, INK, TOP, base_figure, distinct, empty_figure, row_label
from .result import RunResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

IDLE: Final = "idle power"
"""The bar of what is drawn whatever runs."""
_OPERATORS: Final = "operators, beyond idle power"
_COLOUR: Final = "#A3704C"
_SCALES: Final = ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"))


def energy_figure(result: RunResult) -> Figure:
    """Joules of all devices over the whole run by operator, largest first, idle power as a bar among them.

    The bars sum to the run's energy; rows that add nothing (the host's) have none. Without energies in the hardware
    file the figure says so.
    """
    bars = energy_bars(result)
    if bars is None:
        return empty_figure("energy unknown: the hardware file does not give all energies and idle power", FRAME_PX)
    labels = distinct([name for name, _, _ in bars])
    scale, unit = next(
        (s for s in _SCALES if max((joules for _, joules, _ in bars), default=0.0) >= s[0]), (1e-9, "nJ")
    )
    out = base_figure(FRAME_PX + BAR_PX * len(bars), bargap=0.25)
    for series, colour, hatch, idle in ((_OPERATORS, _COLOUR, "", False), (IDLE, INK, "/", True)):
        own = [(at, joules / scale) for at, (_, joules, is_idle) in zip(labels, bars, strict=True) if is_idle == idle]
        if own:
            _add(out, series, colour, hatch, unit, own)
    out.update_yaxes(autorange="reversed", showgrid=False, categoryorder="array", categoryarray=labels)
    out.update_xaxes(title={"text": f"energy ({unit}) of all devices"})
    return out


def energy_bars(result: RunResult) -> list[tuple[str, float, bool]] | None:
    """(label, joules, whether it is idle power) of each bar, largest first; the rest together as the last.

    None where any part is unknown: bars that leave something out would look like the whole.
    """
    known = [(row, row.energy_j) for row in result.operators if row.energy_j is not None]
    if result.idle_energy_j is None or len(known) != len(result.operators):
        return None
    many = len(result.phases) > 1
    ordered = sorted(((row, joules) for row, joules in known if joules), key=lambda item: -item[1])
    bars = [(row_label(row, many), joules, False) for row, joules in ordered[:TOP]]
    bars.append((IDLE, result.idle_energy_j, True))
    bars.sort(key=lambda bar: -bar[1])
    rest = ordered[TOP:]
    return [*bars, (f"{len(rest)} more", sum(joules for _, joules in rest), False)] if rest else bars


def _add(out: Figure, series: str, colour: str, hatch: str, unit: str, bars: list[tuple[str, float]]) -> None:
    import plotly.graph_objects as go

    pattern = {"shape": hatch, "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.7)", "fgopacity": 1.0, "size": 6}
    out.add_trace(
        go.Bar(
            y=[name for name, _ in bars],
            x=[joules for _, joules in bars],
            name=series,
            orientation="h",
            marker={"color": colour, "pattern": pattern, "line": {"width": 0}},
            hovertemplate=f"%{{y}}<br>%{{x:.4g}} {unit}<extra></extra>",
        )
    )
