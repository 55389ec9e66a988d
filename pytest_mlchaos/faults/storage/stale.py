"""Define faults of storage that shows an earlier state."""

from __future__ import annotations

import dataclasses

from ...core.faults import register
from ...core.sites import Visit
from ...core.storage import Listing, Reread
from .common import StorageFault

__all__ = ["StaleListing", "StaleRead"]
LAYER = "Storage"


@register
class StaleRead(StorageFault):
    """A read returns the previous version of a file that was overwritten.

    ``at`` counts the reads of files that changed in this trial. A local file that is opened for
    reading has the old content for as long as it is open.

    Args:
        path: A pattern of files, as for ``slow_storage``.

    Imitates: a cache of a client or a content delivery network, a replica that is behind, a network
    filesystem whose attribute cache is out of date.

    Fidelity: sizes and times (``stat``, ``info``) are those of the new version. Versions up to
    16 MiB are kept. The old version is known if Python code opened, renamed or removed the file
    before the change. On an fsspec filesystem, objects that are read as a whole (``cat``, ``get``)
    are stale, if ``pipe`` or ``put`` wrote both versions in this trial.

    Source: Terry, Replicated Data Consistency Explained Through Baseball, CACM 2013.

    Example: @chaos.stale_read(path="*.json", at=0)
    """

    site = "storage.reread"
    path: str | None = None

    def apply(self, visit: Visit) -> Reread:
        """Let the reader find the previous version."""
        payload: Reread = visit.payload
        visit.note(path=payload.path)
        return dataclasses.replace(payload, replacement=payload.previous)


@register
class StaleListing(StorageFault):
    """A listing or an existence check misses files that were just written, or shows removed ones.

    ``at`` counts the listings (``os.listdir``, ``os.scandir``, ``glob``, ``Path.iterdir``, ``ls``,
    ``find``) and the checks (``exists``, ``isfile``) where files appeared or vanished in this
    trial.

    Args:
        path: A pattern of files, as for ``slow_storage``: a listing counts if such a file appeared
            or vanished in it.

    Imitates: an object store with eventual consistency, a listing cache (``use_listings_cache`` of
    fsspec), a network filesystem whose directory cache is out of date.

    Fidelity: a read of the file itself works. ``os.scandir``, and what uses it (``glob``,
    ``os.walk``), misses new files and never shows removed ones. ``os.stat`` is right.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel

    Example: @chaos.stale_listing(path="*.parquet", at=0)
    """

    site = "storage.list"
    path: str | None = None

    def apply(self, visit: Visit) -> Listing:
        """Show the names from before."""
        payload: Listing = visit.payload
        visit.note(path=payload.path, hidden=len(payload.new), shown=len(payload.gone))
        return dataclasses.replace(payload, hidden=payload.new, shown=payload.gone)
