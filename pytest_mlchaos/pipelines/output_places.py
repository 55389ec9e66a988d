"""Find out where a test says that a pipeline writes: directories, databases and URLs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from ..core.validation import format_value
from ..errors import BadArgument

__all__ = ["Place", "split_outputs"]

Place: TypeAlias = "str | os.PathLike[str]"
OTHER_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "duckdb")
"""Schemes of databases whose rows cannot be read by their URL."""


def split_outputs(places: Place | Iterable[Place], scratch: Path) -> tuple[list[Path], list[str]]:
    """Return the local paths and the URLs among the places that a test names.

    Raise ``BadArgument`` for a place whose content cannot be read and restored.
    """
    given = [places] if isinstance(places, (str, os.PathLike)) else list(places)
    paths, urls = [], []
    for place in given:
        if not isinstance(place, (str, os.PathLike)) or not str(place):
            raise BadArgument(
                f"mlchaos.pipeline: outputs must be paths or URLs, got {format_value(place)}"
            )
        path = _local_path(place)
        if path is None:
            urls.append(str(place))
        elif scratch not in path.parents:
            raise BadArgument(
                f"mlchaos.pipeline: outputs must be below tmp_path, so that the golden run can "
                f"have a copy, got {format_value(str(place))}"
            )
        else:
            paths.append(path)
    return paths, urls


def _local_path(place: Place) -> Path | None:
    """Return the path of a directory, a file or an SQLite database, or None for a URL."""
    text = os.fspath(place)
    scheme, colon, _ = text.partition("://")
    if not colon:
        return Path(os.path.abspath(text))
    scheme = scheme.partition("+")[0]  # the driver, as in sqlite+pysqlite
    if scheme == "sqlite":
        name = text.partition(":///")[2].partition("?")[0]
        if not name:
            raise BadArgument(
                "mlchaos.pipeline: outputs must name a database file, as sqlite:////path/to.db, "
                f"got {format_value(text)}"
            )
        return Path(os.path.abspath(name))
    if scheme in OTHER_DATABASES:
        raise BadArgument(
            f"mlchaos.pipeline: outputs can be SQLite databases, got one of {scheme}. Return its "
            f"rows from the pipeline"
        )
    return Path(os.path.abspath(text.partition("://")[2])) if scheme == "file" else None
