"""``mlchaos.serve(command=...)``: a real server process on this machine."""

from __future__ import annotations

import contextlib
import socket
import sys
import textwrap
import threading
import time

import pytest

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument, PayloadMismatch, ServiceFailed
from pytest_mlchaos.plugin.fixture import Mlchaos
from tests.serving import is_alive

httpx = pytest.importorskip("httpx")
faults.load()
sites.load()
URL = "http://127.0.0.1:{port}"
SERVER = """\
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import shelf

mode = sys.argv[2] if len(sys.argv) > 2 else ""
cached = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            key = self.path[1:]
            if mode == "sticky":  # an error stays for all later requests
                cached.append(shelf.get(key)) if not cached else None
            body = shelf.get(key).encode()
            if key == "slow":
                time.sleep(0.5)
            if key == "note":
                with open("note") as file:
                    body = file.read().encode()
            self.send_response(200)
        except OSError:
            body = b"no shelf"
            self.send_response(503)
        if self.path == "/pid":
            body = str(os.getpid()).encode()
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (body[:1], body[1:]):
            if part:
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(part), part))
                self.wfile.flush()
        self.wfile.write(b"0\\r\\n\\r\\n")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *args):
        pass


if mode == "fails":
    print("no weights at /models/7")
    raise SystemExit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "silent":
    print("still loading", flush=True)
    time.sleep(600)
if mode == "child":
    code = "import os, time; os.setsid(); time.sleep(600)"
    print(subprocess.Popen([sys.executable, "-c", code]).pid, file=open("child", "w"))
Handler.protocol_version = "HTTP/1.1"
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
while mode == "workers":  # a master, which starts a new worker when one dies
    worker = os.fork()
    if not worker:
        break
    os.waitpid(worker, 0)
server.serve_forever()
"""
SHELF = """\
def get(key):
    return "book " + key
"""


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """Serve this server in a trial of faults, in its own folder."""
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "shelf.py").write_text(SHELF)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    @contextlib.contextmanager
    def served(*schedule, mode="", probing=False, **keywords):
        command = [sys.executable, "server.py", "{port}", *([mode] if mode else [])]
        keywords = {"command": command, "url": URL, **keywords}
        with trial(Schedule(schedule), Patches(), probing=probing) as controller:
            yield Mlchaos(tmp_path).serve(**keywords), controller

    yield served
    sys.modules.pop("shelf", None)


def failure(at):
    """A failure of the server's dependency."""
    return create("dependency_failure", target="shelf:get", at=at)


def test_a_server_answers_over_sockets_and_ends_with_the_trial(serving):
    """The replies are those of an app in process, and no process is left."""
    with serving() as (service, _):
        load = service.drive(["/a", "/b", "/pid"], concurrency=2)
        pid = int(load.replies[2].text)
        assert is_alive(pid)
        keeper = service._app_runner._driver.server.process.keeper_pid
    assert [reply.text for reply in load.replies[:2]] == ["book a", "book b"]
    assert [reply.status for reply in load.replies] == [200] * 3
    assert all(reply.ok and 0 < reply.latency < 10 for reply in load.replies)
    assert not is_alive(pid)
    assert not is_alive(keeper)


def test_a_fault_strikes_inside_the_server(serving):
    """It is in the journal, and belongs to the only request in flight."""
    with serving(failure(at=1)) as (service, controller):
        load = service.drive(["/a", "/b", "/c"])
        assert [reply.status for reply in load.replies] == [200, 503, 200]
        (strike,) = controller.journal
        assert (strike.site, strike.visit, strike.details["process"]) == ("call", 1, "server.1")
        assert load.replies[1].faults == (strike,)
        load.assert_fallback(status=503)
        load.assert_isolated()


def test_a_fault_of_files_strikes_inside_the_server(serving, tmp_path):
    """The interpreter itself opens the script without a caller."""
    (tmp_path / "note").write_text("read me")
    with serving(create("flaky_storage", path="note", op="read", at=1)) as (service, _):
        load = service.drive(["/note"] * 3)
    assert [reply.text for reply in load.replies] == ["read me", "no shelf", "read me"]


def test_a_strike_among_several_requests_may_have_hit_each_of_them(serving):
    """Attribution stays honest."""
    with serving(failure(at=2)) as (service, _):
        # Each is in flight for half a second
        load = service.drive(["/slow"] * 4, concurrency=4)
    (place,) = (number for number, reply in enumerate(load.replies) if reply.status == 503)
    (suspicion,) = load.replies[place].suspicions
    assert place in suspicion.requests


def test_a_golden_load_needs_a_server_without_faults(serving):
    """It is started again, so an error that stays is found."""
    with serving(failure(at=0), mode="sticky") as (service, _):
        load = service.drive(["/a", "/b"])
        assert [reply.status for reply in load.replies] == [503, 200]
        assert [reply.status for reply in load.golden.replies] == [200, 200]
        with pytest.raises(BadArgument, match="this service is over"):
            service.drive(["/a"])


def test_a_search_finds_the_visits_inside_the_server(serving):
    """A trial without faults counts them."""
    with serving(failure(at=None), probing=True) as (service, controller):
        service.drive(["/a", "/b", "/c"])
        controller.hear()
        assert controller.scheduled[0].eligible == [0, 1, 2]
        assert not controller.journal


@pytest.mark.parametrize("how", ["receive", "reset"])
def test_a_client_leaves_for_real(serving, how):
    """It has the chunks until then. What the server does afterwards is not known."""
    with serving(create("client_disconnect", how=how, after=1, at=1)) as (service, controller):
        load = service.drive(["/a", "/b", "/c"])
    whole, left, after = load.replies
    assert [chunk.data for chunk in whole.chunks] == [b"b", b"ook a"]
    assert [chunk.data for chunk in left.chunks] == [b"b"]
    assert left.left is not None
    assert left.faults == (*controller.journal,)
    assert left.remote
    assert left.ended is None
    assert after.text == "book c"
    assert load.error_rate == 0


def test_a_slow_client_sends_its_body_in_parts(serving):
    """Its latency does not count."""
    slow = create("slow_client", of="upload", rate=100_000, at=0)
    with serving(slow) as (service, _):
        load = service.drive([("POST", "/a", ["x" * 4000]), "/b"])
    first, second = load.replies
    assert first.slowed
    assert first.latency > 0.03  # 4,000 bytes, less the time until the server has the first
    assert first.faults
    assert second.latency < first.latency


def test_a_server_is_killed_and_restarted(serving):
    """Meanwhile no request reaches it. The next one is at the same port."""
    with serving(failure(at=EVERY)) as (service, controller):
        service.kill()
        (refused,) = service.drive(["/a"]).replies
        assert type(refused.error).__name__ == "ConnectError"
        assert "SIGKILL" in refused.error.__notes__[0]
        service.restart()
        assert service.drive(["/a"]).replies[0].status == 503
        assert [strike.details["process"] for strike in controller.journal] == ["server.2"]


@pytest.mark.parametrize(("mode", "later"), [("workers", 200), ("", None)])
def test_the_worker_that_has_a_request_dies(serving, mode, later):
    """The client gets no answer. A server of one process is gone."""
    death = create("worker_death", of="server", at=1)
    with serving(death, mode=mode) as (service, controller):
        load = service.drive(["/a", "/b", "/c"])
        (strike,) = controller.journal
    first, struck, last = load.replies
    assert first.ok
    assert struck.faults == (strike,)
    assert isinstance(struck.error, httpx.TransportError)
    assert last.status == later


def test_the_death_of_a_worker_hits_all_its_requests(serving):
    """A worker with several threads has several requests."""
    death = create("worker_death", of="server", at=2)
    with serving(death, mode="workers") as (service, _):
        load = service.drive(["/slow", "/slow", "/slow", "/b"], concurrency=3)
        assert [bool(reply.faults) for reply in load.replies] == [True, True, True, False]
        assert [reply.ok for reply in load.replies] == [False, False, False, True]
        load.assert_isolated()


def test_a_worker_death_needs_a_server_process(tmp_path):
    """An app in process has none."""
    death = create("worker_death", of="server", at=0)
    with pytest.raises(PayloadMismatch, match="needs a serv"), trial(Schedule((death,)), Patches()):
        Mlchaos(tmp_path).serve(_empty).drive(["/"])


async def _empty(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_what_a_server_leaves_is_ended(serving, tmp_path):
    """Also a process in a session of its own, after the test failed."""
    with pytest.raises(ZeroDivisionError), serving(mode="child") as (service, _):
        service.drive(["/a"])
        pid = (tmp_path / "child").read_text().strip()
        assert is_alive(pid)
        raise ZeroDivisionError
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("mode", "words", "last"),
    [
        ("fails", r"failed at start-up: it ended with exit code 3", "no weights at /models/7"),
        ("silent", r"did not answer within 2 s .* its port \d+ is not open", "still loading"),
    ],
)
def test_a_server_that_does_not_start_is_told_with_its_last_lines(serving, mode, words, last):
    """In bounded time."""
    with (
        pytest.raises(ServiceFailed, match=words) as caught,
        serving(mode=mode, timeout=2 if mode == "silent" else 10),
    ):
        pass
    assert last in caught.value.__notes__[0]


def test_a_server_is_ready_when_its_path_answers(serving):
    """An open port is not enough then."""
    with serving(ready="/a") as (service, _):
        assert service.drive(["/b"]).replies[0].ok


@pytest.mark.slow
def test_a_server_whose_path_answers_with_an_error_is_not_ready(serving):
    """The message has the status."""
    with (
        pytest.raises(ServiceFailed, match=r"within 5 s .*: GET /a was answered with 503"),
        serving(failure(at=EVERY), ready="/a", timeout="5s"),
    ):
        pass


def test_a_server_that_ignores_sigterm_is_killed(serving):
    """After the time limit, and the test hears of it."""
    with (
        pytest.raises(ServiceFailed, match=r"did not end within 3 s of SIGTERM"),
        serving(mode="stubborn", timeout="3s") as (service, _),
    ):
        pid = int(service.drive(["/pid"]).replies[0].text)
        assert is_alive(pid)
    assert not is_alive(pid)


def test_a_port_in_use_is_refused(serving):
    """The answers would be those of a different server."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        command = [sys.executable, "server.py", str(port)]
        with (
            pytest.raises(ServiceFailed, match=f"the port {port} is in use"),
            serving(command=command, url=f"http://127.0.0.1:{port}"),
        ):
            pass


@pytest.mark.slow
def test_a_different_server_at_its_port_is_not_taken_for_it(serving, tmp_path):
    """It may take the free port while the server starts."""
    code = """
    import pathlib, time
    pathlib.Path("started").touch()
    time.sleep(1)
    raise SystemExit(3)
    """
    (tmp_path / "late.py").write_text(textwrap.dedent(code))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

        def listen():
            while not (tmp_path / "started").exists():
                time.sleep(0.01)
            held.listen()

        thread = threading.Thread(target=listen)
        thread.start()
        with (
            pytest.raises(ServiceFailed, match="ended with exit code 3"),
            serving(command=[sys.executable, "late.py"], url=f"http://127.0.0.1:{port}"),
        ):
            pass
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"command": ["no-such-server", "{port}"], "url": URL}, "neither on the path nor beside"),
        ({"command": ["python"], "url": "http://127.0.0.1"}, "which has no port"),
        ({"command": ["python", "{port}"], "url": "http://127.0.0.1:80"}, "must both contain"),
        ({"command": ["python", "{port}"], "url": "https://127.0.0.1:{port}"}, "Only http"),
        ({"command": ["python", "{port}"], "url": "http://10.0.0.1:{port}"}, "on this machine"),
        ({"command": "python {port}", "url": URL}, "must be a list of texts"),
        ({"command": ["python", "{port}"]}, "command needs url="),
        ({"app": print, "command": ["python", "{port}"], "url": URL}, "not both"),
        ({"app": print, "ready": "/health"}, "ready needs command="),
        ({"command": ["python", "{port}"], "url": URL, "ready": "health"}, "ready must be a path"),
        ({"command": ["python", "{port}"], "url": URL, "cwd": "/nowhere"}, "cwd must be"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(tmp_path, arguments, words):
    """Each names what to do."""
    with trial(Schedule(()), Patches()), pytest.raises(BadArgument, match=words):
        Mlchaos(tmp_path).serve(**arguments)


def test_only_a_real_process_is_killed(tmp_path):
    """An app in process is not one."""
    with trial(Schedule(()), Patches()):
        service = Mlchaos(tmp_path).serve(lambda request: request)
        with pytest.raises(BadArgument, match=r"service.kill\(\) needs a real process"):
            service.kill()


def test_a_server_that_runs_no_hook_is_refused(serving):
    """Its faults could never strike."""
    command = [sys.executable, "-E", "server.py", "{port}"]
    with (
        pytest.raises(BadArgument, match="no fault can strike inside the server"),
        serving(failure(at=0), command=command),
    ):
        pass
