"""torch.hub: a file of labels that is downloaded."""

import hashlib

import torch
from local_server import serve

URL = ""
LABELS = "".join(f"label {number}\n" for number in range(4000)).encode()


def prepare(workdir):
    global URL
    with serve({"/labels.txt": LABELS}) as URL:
        yield


def pipeline(workdir):
    path = str(workdir / "labels.txt")
    wanted = hashlib.sha256(LABELS).hexdigest()
    torch.hub.download_url_to_file(f"{URL}/labels.txt", path, progress=False)
    return "downloaded"
