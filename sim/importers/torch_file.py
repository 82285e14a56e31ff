"""A user's Python file → the module and inputs that one of its functions makes.

This runs the file, because its user asked for it on the command line by name. Nothing that is read from a YAML or from
a model file ever leads here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ..errors import DataError, UnsupportedError
from ..spec.confine import is_file, layers
from .torch_export import from_module
from .traced_workload import Imported

_MODULE: Final = "effsim_imported_file"
_RESULT: Final = "(module, inputs) or (module, args, kwargs)"


def from_file(target: str, name: str = "", *, real: bool = False) -> Imported:
    """The workload of what ``file.py:factory`` makes; on the meta device unless *real*, so that weights take no memory.

    Raises:
        DataError: no such file or function, an exception inside it, or a result of another form.
        UnsupportedError: torch is missing, or the module cannot be exported.
    """
    path, factory = _split(target)
    try:
        import torch
    except ImportError:
        raise UnsupportedError("importing a torch module needs PyTorch: pip install 'effsim[torch]'") from None
    with nullcontext() if real else torch.device("meta"):
        made = _run(path, factory)
    module, args, kwargs = _parts(made, target)
    if not isinstance(module, torch.nn.Module):
        raise DataError(f"{target}: returned a {type(module).__name__} first; expected a torch.nn.Module")
    return from_module(module, args, kwargs, name or factory)


def _split(target: str) -> tuple[Path, str]:
    file, colon, factory = target.rpartition(":")
    if not colon or not factory.isidentifier() or not file.endswith(".py"):
        raise DataError(f"{target[:200]!r} is not FILE.py:FUNCTION, for example model.py:build")
    if layers() is not None or not is_file(Path(file)):  # nobody else's Python is run, wherever it stands
        raise DataError(f"{file}: no such file")
    return Path(file).resolve(), factory


@contextmanager
def _folder_first(folder: Path) -> Iterator[None]:
    """The file's neighbours can be imported, as when it is run as a program."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _run(path: Path, factory: str) -> Any:
    with _folder_first(path.parent):
        module = _load(path)
        function = getattr(module, factory, None)
        if not callable(function):
            names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            raise DataError(f"{path}: no function {factory!r}; it has {', '.join(names[:20]) or 'none'}")
        try:
            return function()
        except (Exception, SystemExit) as error:
            raise DataError(f"{path}: {factory}() raised {_said(error)}{_hint(error)}") from None


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: cannot be run as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DataError(f"{path}: running it raised {_said(error)}{_hint(error)}") from None
    finally:
        sys.modules.pop(_MODULE, None)
    return module


def _said(error: BaseException) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def _hint(error: BaseException) -> str:
    return "; --real builds it with real tensors" if "meta" in str(error).lower() else ""


def _parts(made: Any, target: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Module, positional and keyword arguments; inputs may be one tensor, a sequence or a mapping."""
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        raise DataError(f"{target}: returned {type(made).__name__}; expected {_RESULT}")
    module, inputs = made[0], made[1]
    if len(made) == 3:
        if not isinstance(inputs, tuple | list) or not isinstance(made[2], Mapping):
            raise DataError(f"{target}: returned other than {_RESULT}")
        return module, tuple(inputs), dict(made[2])
    if isinstance(inputs, Mapping):
        return module, (), dict(inputs)
    return module, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,), {}
