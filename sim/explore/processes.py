"""Processes that work for this one."""

from __future__ import annotations

import os


def end_with_parent() -> None:
    """End this process when its parent is gone, however that ended."""
    import threading
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
