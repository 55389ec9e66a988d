"""Download under a temporary name, compare the size with the one that the server announced, and
then rename.
"""

import urllib.request
from pathlib import Path


def download(url: str, target: Path) -> int:
    """Download a file, and return its size in bytes. Raise ``OSError`` if a part is missing."""
    part = target.with_name(f"{target.name}.part")
    with urllib.request.urlopen(url, timeout=5) as response, part.open("wb") as file:
        while piece := response.read(16_384):
            file.write(piece)
        announced = int(response.headers["Content-Length"])
        if file.tell() != announced:
            raise OSError(f"{url} ended after {file.tell()} of {announced} bytes")
    part.replace(target)
    return target.stat().st_size
