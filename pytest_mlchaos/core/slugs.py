"""Make names of folders from the ids of tests."""

from __future__ import annotations

import hashlib
import re

__all__ = ["slug_of"]

MAX_SLUG = 100
"""Characters of a folder's name. Most filesystems allow 255 bytes."""


def slug_of(nodeid: str) -> str:
    """Return a name for a folder that is different for each test.

    It ends with a digest if characters of the id had to be replaced by an underscore or cut off.
    ``::`` and ``/`` are replaced by a dot, and need none.
    """
    plain = nodeid.replace("::", ".").replace("/", ".")
    name = re.sub(r"[^\w.-]+", "_", plain, flags=re.ASCII)
    if name == plain and len(name) <= MAX_SLUG:
        return name
    digest = hashlib.sha256(nodeid.encode()).hexdigest()[:8]
    return f"{name[:MAX_SLUG]}-{digest}"
