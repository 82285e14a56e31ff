"""From a slider to its figure: ``python benchmarks/dashboard.py``.

What the server does for one step of a slider on the what-if page (an A100, 70B decode, analytic reading): the change,
the run, the difference to the baseline, the figures, and the JSON that is sent. Every repetition has another value, so
nothing is remembered of it. CPU seconds, and turns of the reference loop of ``run.py``, which a shared machine slows
alike.
"""

from __future__ import annotations

import sys
from itertools import count

from run import HARDWARE, WORKLOAD, Row, cpu, report

from effsim.dashboard import what_if_actions
from effsim.dashboard.pages import what_if
from effsim.dashboard.service import Asked, Service

WANTED_S = 0.2
REPETITIONS = 7
PATH = "hardware.memory.bandwidth"
STEPS = 512


def main() -> int:
    """Print what a step costs; 1 if it takes longer than it should."""
    from dash._utils import to_json

    service = Service()
    values = count(1)
    start = Asked(HARDWARE, WORKLOAD, what_if.READING)

    def changed(_: object = None) -> Asked:
        text = f"{2039 + next(values) / STEPS:.6f} GB/s"
        changes, _pin = what_if_actions.acted(service, start, (), {"type": "what-text", "path": PATH}, text)
        what_if_actions.followed(
            service, Asked(HARDWARE, WORKLOAD, what_if.READING, tuple(changes)), [[PATH], [PATH], [], []]
        )
        return Asked(HARDWARE, WORKLOAD, what_if.READING, tuple(changes))

    def whole() -> object:
        asked = changed()
        return to_json([what_if.answer(service, asked, (), "what-shown"), what_if.changed_list(service, asked, ())])

    try:
        rows = [
            Row("what-if: from slider to figure", cpu(whole, REPETITIONS), WANTED_S),
            Row("of that, the run", cpu(lambda: service.run(changed(), sensitivity=False), REPETITIONS)),
            Row("of that, the change", cpu(changed, REPETITIONS)),
        ]
    finally:
        service.jobs.close()
        service.shelf.close()
    print(report(rows), end="")
    return int(rows[0].least > WANTED_S)


if __name__ == "__main__":
    sys.exit(main())
