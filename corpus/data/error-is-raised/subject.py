"""requests: the users that are blocked."""

import json

import requests
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    with serve({"/blocked": json.dumps(["eve", "mallory"]).encode()}) as URL:
        yield


def blocked():
    response = requests.get(f"{URL}/blocked", timeout=5)
    response.raise_for_status()
    return response.json()


def pipeline(workdir):
    return [user for user in ("alice", "eve", "bob") if user not in blocked()]
