"""Run a script as a subject, in this process, like ``python train.py --out DIR``."""

from __future__ import annotations

import functools
import io
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.validation import did_you_mean, format_value
from ..engine.user_code import add_folder
from ..errors import BadArgument

__all__ = ["script"]


def script(
    path: str | os.PathLike[str],
    args: tuple[Any, ...],
    beside: Path | None = None,
    owner: str = "mlchaos.script",
) -> Callable[..., None]:
    """Return a function that runs this file as the main module.

    Args:
        path: The path of the file.
        args: The arguments of the script.
        beside: A second folder for relative paths.
        owner: The name of the method in messages.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise BadArgument(
            f"{owner}: path must be the path of a Python file, got {format_value(path)}"
        )
    for place in dict.fromkeys([Path.cwd(), *([beside] if beside is not None else [])]):
        file = place / path
        if file.is_file():
            add_folder(file.resolve().parent)
            return functools.partial(_run, str(file.resolve()), args)
    folder = (Path.cwd() / path).parent
    close = did_you_mean(Path(path).name, [one.name for one in folder.glob("*.py")])
    raise BadArgument(
        f"{owner}: the file {os.fspath(path)!r} does not exist in the current directory or "
        f"in the test's{close}"
    )


def _run(path: str, args: tuple[Any, ...], *more: object) -> None:
    """Run the script.

    ``more`` are arguments of the call, for example a work directory. Leave out those that ``args``
    contains.
    """
    own = [_text(one) for one in args]
    added = [text for text in map(_text, more) if not any(text in argument for argument in own)]
    main, argv, search = sys.modules.get("__main__"), sys.argv[:], sys.path[:]
    module = types.ModuleType("__main__")
    module.__file__ = path
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    sys.modules["__main__"] = module
    sys.argv[:] = [path, *own, *added]
    sys.path.insert(0, os.path.dirname(path))
    try:
        exec(code, vars(module))
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv[:], sys.path[:] = argv, search
        if main is not None:
            sys.modules["__main__"] = main


def _text(argument: object) -> str:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else str(argument)
