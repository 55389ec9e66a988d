"""requests: a download that goes on where it was interrupted."""

import hashlib

import requests
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    with serve({"/weights.bin": bytes(range(256)) * 200}) as URL:
        yield


def pipeline(workdir):
    data = b""
    for attempt in range(4):
        headers = {"Range": f"bytes={len(data)}-"} if data else {}
        try:
            url = f"{URL}/weights.bin"
            with requests.get(url, headers=headers, stream=True, timeout=5) as response:
                response.raise_for_status()
                if response.status_code != requests.codes.partial_content:
                    data = b""
                for block in response.iter_content(1024):
                    data += block
            break
        except requests.RequestException:
            if attempt == 3:
                raise
    return hashlib.sha256(data).hexdigest()
