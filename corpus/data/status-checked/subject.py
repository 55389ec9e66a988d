"""urllib3: the number of stop words in a published list."""

import urllib3
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    with serve({"/stop-words": b"the\na\nan\nof\nto\n"}) as URL:
        yield


def pipeline(workdir):
    response = urllib3.request("GET", f"{URL}/stop-words", timeout=5)
    if response.status != 200:
        raise OSError(f"the server answered {response.status}")
    return len(response.data.splitlines())
