"""urllib: the number of lines of a file that is fetched piece by piece."""

import urllib.request

from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    with serve({"/log.txt": b"a line of the log\n" * 3000}) as URL:
        yield


def pipeline(workdir):
    data = b""
    with urllib.request.urlopen(f"{URL}/log.txt", timeout=5) as response:
        while piece := response.read(4096):
            data += piece
    return data.count(b"\n")
