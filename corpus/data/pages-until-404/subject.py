"""httpx: the sum over the pages of an API."""

import httpx
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    with serve(
        {f"/orders/{page}": f"[{page}, {page * page}]".encode() for page in range(5)}
    ) as URL:
        yield


def pipeline(workdir):
    total = page = 0
    with httpx.Client(base_url=URL, timeout=5) as client:
        while True:
            response = client.get(f"/orders/{page}")
            if response.status_code == 404:
                return total
            response.raise_for_status()
            total += sum(response.json())
            page += 1
