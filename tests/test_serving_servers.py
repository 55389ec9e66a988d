"""``mlchaos.serve(command=...)`` with servers that people run: uvicorn, gunicorn and others."""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.plugin.fixture import Mlchaos
from tests.serving import is_alive

pytest.importorskip("httpx")
faults.load()
sites.load()
URL = "http://127.0.0.1:{port}"
FILES = {
    "doubler.py": """\
class Model:
    def predict(self, x):
        return x * 2


model = Model()
""",
    "asgi.py": """\
import asyncio

from doubler import model

slots = 1


async def app(scope, receive, send):
    global slots
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["path"] == "/stream":
        await stream(receive, send)
        return
    body = b"%d" % model.predict(int(scope["path"][1:]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def stream(receive, send):
    \"\"\"Stream tokens. The slot of a client that leaves is never free again.\"\"\"
    global slots
    status, slots = (200, slots - 1) if slots else (429, slots)
    await send({"type": "http.response.start", "status": status, "headers": []})
    if status == 200:
        gone = asyncio.ensure_future(disconnected(receive))
        for number in range(4):
            data = {"type": "http.response.body", "body": b"%d" % number, "more_body": True}
            await send(data)
            await asyncio.wait({gone}, timeout=0.01)
            if gone.done():
                return
        gone.cancel()
        slots += 1
    await send({"type": "http.response.body", "body": b""})


async def disconnected(receive):
    while (await receive())["type"] != "http.disconnect":
        pass
""",
    "wsgi.py": """\
from doubler import model


def app(environ, start_response):
    body = b"%d" % model.predict(int(environ["PATH_INFO"][1:]))
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]
""",
    "lit.py": """\
import sys

import litserve

from doubler import Model


class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request["x"]

    def predict(self, x):
        return self.model.predict(x)

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
""",
    "bento.py": """\
import bentoml

from doubler import Model


@bentoml.service
class Doubler:
    def __init__(self):
        self.model = Model()

    @bentoml.api
    def predict(self, x: int) -> int:
        return self.model.predict(x)
""",
    "ray_app.py": """\
from ray import serve
from starlette.requests import Request

from doubler import Model


@serve.deployment
class Doubler:
    def __init__(self):
        self.model = Model()

    async def __call__(self, request: Request):
        return self.model.predict((await request.json())["x"])


app = Doubler.bind()
""",
    "ray_start.py": """\
import sys

import ray
from ray import serve

ray.init(include_dashboard=False, num_cpus=2)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
from ray_app import app

serve.run(app, blocking=True)
""",
}
UVICORN = ["uvicorn", "asgi:app", "--port", "{port}", "--log-level", "warning"]
GUNICORN = ["gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", "wsgi:app"]
POSTS = [("POST", "/predict", {"x": number}) for number in range(4)]
GETS = [f"/{number}" for number in range(4)]


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """Serve one of these apps by a command, in a trial of faults."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    @contextlib.contextmanager
    def served(command, *schedule, **keywords):
        with trial(Schedule(schedule), Patches()) as controller:
            yield Mlchaos(tmp_path).serve(command=command, url=URL, **keywords), controller

    yield served
    sys.modules.pop("doubler", None)


def failure(at):
    """A failure of the model. Gunicorn takes a ``ConnectionError`` for one of its client."""
    return create("dependency_failure", target="doubler:Model.predict", error="KeyError", at=at)


def test_a_slot_leaks_in_uvicorn_when_a_client_leaves(serving):
    """The next request finds the server busy."""
    pytest.importorskip("uvicorn")
    leaves = create("client_disconnect", how="receive", after=2, at=1)
    with serving(UVICORN, leaves) as (service, _):
        load = service.drive(["/stream"] * 3)
    assert [reply.status for reply in load.replies] == [200, 200, 429]
    assert [chunk.data for chunk in load.replies[1].chunks] == [b"0", b"1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "command", "requests", "ready"),
    [
        ("uvicorn", [*UVICORN, "--workers", "2"], GETS, None),
        ("gunicorn", GUNICORN, GETS, None),
        ("litserve", ["python", "lit.py", "{port}"], POSTS, "/health"),
        (
            "bentoml",
            ["bentoml", "serve", "bento:Doubler", "--host", "127.0.0.1", "--port", "{port}"],
            POSTS,
            "/readyz",
        ),
        (
            "ray.serve",
            ["python", "ray_start.py", "{port}"],
            [("POST", "/", body) for *_, body in POSTS],
            "/-/healthz",
        ),
    ],
)
def test_a_fault_strikes_in_the_worker_of_a_server(serving, library, command, requests, ready):
    """One request fails, the others are answered, and the strike belongs to it."""
    pytest.importorskip(library)
    with serving(command, failure(at=1), ready=ready, timeout=120) as (service, controller):
        load = service.drive(requests)
        (strike,) = controller.journal
        assert [reply.status for reply in load.replies] == [200, 500, 200, 200]
        assert load.replies[1].faults == (strike,)
        load.assert_isolated()


@pytest.mark.slow
def test_gunicorn_starts_a_new_worker_when_one_dies(serving):
    """One request is lost."""
    pytest.importorskip("gunicorn")
    death = create("worker_death", of="server", at=1)
    with serving(GUNICORN, death) as (service, _):
        load = service.drive(GETS)
    assert [reply.status for reply in load.replies] == [200, None, 200, 200]
    assert load.replies[1].faults


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_signal_to_the_test_leaves_no_server(tmp_path, name):
    """Whatever ends the session."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            f"""
            import os
            import signal
            import sys
            import time


            def test_it(mlchaos):
                service = mlchaos.serve(
                    command=[sys.executable, "-m", "http.server", "{{port}}"], url="{URL}"
                )
                server = service._app_runner._driver.server.process
                with open("pids", "w") as file:
                    print(server.pid, server.keeper_pid, file=file)
                os.kill(os.getpid(), signal.{name})
                time.sleep(60)
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    restore = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, preexec_fn=restore)
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    until = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
