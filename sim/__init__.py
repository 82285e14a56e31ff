"""effsim: how long, how much memory, how much energy, how much money a neural network takes on hardware, and why.

    >>> import effsim
    >>> result = effsim.run("gpu_a100", "llama70b_decode", engine="analytic")
    >>> result.devices
    2

Everything heavy is imported when it is first used, so that ``import effsim`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DataError, DoesNotFitError, EffsimError, SpecError, UnitError, UnknownNameError, UnsupportedError
from .version import VERSION

if TYPE_CHECKING:
    from ._api import (
        check_file,
        compare,
        explain,
        import_config,
        kernel_table,
        plan,
        run,
        schemas,
        serve,
        sweep,
    )
    from .devices.registry import load_machine
    from .importers.surface import from_onnx, from_torch
    from .importers.traced_workload import ApproximationWarning, to_yaml
    from .program.workload_file import load_engine, load_workload
    from .report.result import RunResult

__version__ = VERSION

_LAZY = {
    "run": "._api",
    "compare": "._api",
    "explain": "._api",
    "serve": "._api",
    "sweep": "._api",
    "plan": "._api",
    "kernel_table": "._api",
    "from_onnx": ".importers.surface",
    "from_torch": ".importers.surface",
    "to_yaml": ".importers.traced_workload",
    "ApproximationWarning": ".importers.traced_workload",
    "import_config": "._api",
    "check_file": "._api",
    "schemas": "._api",
    "load_machine": ".devices.registry",
    "load_workload": ".program.workload_file",
    "load_engine": ".program.workload_file",
    "RunResult": ".report.result",
}

__all__ = [
    "ApproximationWarning",
    "DataError",
    "DoesNotFitError",
    "EffsimError",
    "RunResult",
    "SpecError",
    "UnitError",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "check_file",
    "compare",
    "explain",
    "from_onnx",
    "from_torch",
    "import_config",
    "kernel_table",
    "load_engine",
    "load_machine",
    "load_workload",
    "plan",
    "run",
    "schemas",
    "serve",
    "sweep",
    "to_yaml",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module, __name__), name)
