"""Last words of the paths of a GPU file that are times, and of those that are rates in seconds."""

from __future__ import annotations

TIMES = (
    "latency",
    "reduction",
    "module_setup",
    "setup",
    "step",
    "simple_setup",
    "simple_step",
    "direct_setup",
    "trip",
    "graph",
    "stream",
    "dispatch",
    "eager",
)
RATES = ("bandwidth", "drain", "ll_assumed")
