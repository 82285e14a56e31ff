"""A day of traffic on one core: ``python benchmarks/serve.py [--day]``.

Llama-3-70B on eight H100, ten requests a second, prompts of 512 tokens and 256 generated. Without ``--day`` the cost of
a request is the slope between two shorter loads, least of a few repetitions, and a day is that times 864,000 plus what
is paid once; each is also given in turns of the reference loop of ``run.py``, which a shared machine slows alike.
"""

from __future__ import annotations

import sys
import time

from run import cpu, reference

import effsim

REQUESTS, REPETITIONS = (10_000, 50_000), 3
DAY = 864_000
WANTED_S = 60.0


def served(requests: int) -> float:
    """CPU seconds of so many requests."""
    load = f"workload.serving={{arrivals: {{rate: 10, requests: {requests}}}}}"
    sizes = ["workload.prompt=512", "workload.generate=256", "workload.parallelism={tensor: 8}"]
    start = time.process_time()
    found = effsim.serve("system_dgx_h100", "llama3_70b_generate", set=[load, *sizes])
    assert found.completed == requests
    return time.process_time() - start


def main() -> int:
    """Print what a request and a day cost; 1 if a day takes longer than it should."""
    served(100)  # what is compiled and imported once is not a day's work
    if "--day" in sys.argv[1:]:
        day = served(DAY)
        print(f"{DAY} requests: {day:.1f} s of CPU, {1e6 * day / DAY:.1f} us a request")
        return int(day > WANTED_S)
    few, many = (min(served(n) for _ in range(REPETITIONS)) for n in REQUESTS)
    loop = min(alone for _, alone in cpu(reference, REPETITIONS))
    each = (many - few) / (REQUESTS[1] - REQUESTS[0])
    day = few + each * (DAY - REQUESTS[0])
    print("| what | CPU | x reference loop |\n|---|--:|--:|")
    print(f"| a request | {1e6 * each:.1f} us | {each / loop:.3g} |")
    print(f"| {DAY} requests | {day:.1f} s | {day / loop:.3g} |")
    return int(day > WANTED_S)


if __name__ == "__main__":
    sys.exit(main())
