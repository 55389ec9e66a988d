"""Accept URLs that fsspec knows as work directories of ``mlchaos.explore_crashes``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.validation import format_value
from ..errors import BadArgument
from .recording.fsspec_prefix import Prefix
from .recording.location import Location
from .recording.remote_location import RemotePrefix

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["check_shared", "prefix_of", "remote_at"]

CALLER = "mlchaos.explore_crashes"


def prefix_of(workdir: object, storage_options: Mapping[str, Any] | None) -> Prefix | Path | None:
    """Return the prefix that a work directory names.

    Return a path for a URL of local files, and None if it is not a URL. Any object with a
    filesystem ``fs`` and a ``path`` counts as a URL.
    """
    if isinstance(workdir, str) and "://" in workdir:
        return _of_url(workdir, dict(storage_options or {}))
    if storage_options is not None:
        raise BadArgument(
            f"{CALLER}: storage_options is for a URL, but workdir is {format_value(workdir)}"
        )
    fs, path = getattr(workdir, "fs", None), getattr(workdir, "path", None)
    if not isinstance(path, str) or not hasattr(fs, "storage_options"):
        return None
    return _prefix(fs, path, str(workdir))


def _of_url(url: str, options: dict[str, Any]) -> Prefix | Path:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise BadArgument(
            f"{CALLER}: the URL {format_value(url)} needs fsspec: pip install fsspec"
        ) from error
    if "::" in url:
        raise BadArgument(
            f"{CALLER}: {format_value(url)} is a chain of filesystems: give the URL of the "
            f"checkpoints' own filesystem"
        )
    try:
        fs, path = url_to_fs(url, **options)
    except (ImportError, ValueError, TypeError) as error:
        raise BadArgument(
            f"{CALLER}: no filesystem for {url.partition('://')[0]}://: {error}"
        ) from error
    return _prefix(fs, path, url)


def _prefix(fs: AbstractFileSystem, path: str, name: str) -> Prefix | Path:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    if "file" in protocols:
        return Path(path)
    return Prefix(
        type(fs), tuple(fs.storage_args), fs.storage_options, fs._strip_protocol(path), name
    )


@contextlib.contextmanager
def remote_at(prefix: Prefix | Path | None, options: Any) -> Iterator[RemotePrefix | None]:
    """Open the location of a prefix, or yield None for a directory.

    ``options`` are those of the exploration.
    """
    if not isinstance(prefix, Prefix):
        yield None
        return
    for name, given, cure in (
        ("cross_device", options.cross_device, "it only applies to directories"),
        (
            "durability",
            options.durability == "power",
            "an object store keeps what it has confirmed through a power loss",
        ),
        (
            "record",
            options.record != "auto",
            "object operations are recorded there, not system calls",
        ),
        ("jobs", options.parallel > 1, "the runs share one URL, so they take place one at a time"),
    ):
        if given:
            raise BadArgument(
                f"{CALLER}: {name}={getattr(options, name)!r} has no meaning at {prefix}: {cure}"
            )
    with RemotePrefix.opened(prefix, CALLER, allow_remote=options.allow_remote) as remote:
        yield remote


def check_shared(location: Location) -> None:
    """Raise ``BadArgument`` if fresh processes cannot share a location."""
    if isinstance(location, RemotePrefix):
        location.check_shared(CALLER)
