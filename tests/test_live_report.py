"""The live report: the same page, served on loopback while the session runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_mlchaos.core import entries
from pytest_mlchaos.core.entries import Line
from pytest_mlchaos.engine.activity import TOOL_PROCESSES
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.plugin.live import LiveReport, port_of
from pytest_mlchaos.reports.journal_reader import timings_path

from . import synthetic_journal

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")

from pytest_mlchaos.reports.html.live import GrowingFile, LivePage, server_of

TESTS = """
import time
from pathlib import Path
from pytest_mlchaos import chaos

GO = Path(__file__).parent / "go"

def call():
    return 1

@chaos.call_delay(target="test_file:call", at=0, delay=5)
def test_first(mlchaos):
    start = time.monotonic()
    assert call() == 1
    assert 4.9 < time.monotonic() - start < 5.5

def test_waits():
    deadline = time.monotonic() + 60
    while not GO.exists() and time.monotonic() < deadline:
        time.sleep(0.05)

@chaos.call_failure(target="test_file:call", at=0)
def test_last(mlchaos):
    call()
"""


def row(number, outcome="passed"):
    """A line of a journal."""
    return (
        Line("t.py::t", number, entries.Trial(outcome=outcome, schedule=f"f(at={number})")).text()
        + "\n"
    )


@pytest.fixture
def served(tmp_path):
    """A growing journal, its page, and the port of its server."""
    journal = tmp_path / "j.jsonl"
    journal.write_text("")
    page = LivePage(journal)
    server = server_of(page, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield journal, page, server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def get(port, path="/page", **headers):
    """The status, the headers and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read().decode()
    finally:
        connection.close()


def test_growing_file_reads_whole_lines_once(tmp_path):
    """Half a line waits for its end, and a replaced file is read again."""
    path = tmp_path / "j.jsonl"
    file = GrowingFile(path)
    assert not file.refresh()
    path.write_text(row(1) + row(2)[:20])
    assert file.refresh()
    assert [line.trial for line in file.lines] == [1]
    assert not file.refresh()
    with path.open("a") as more:
        more.write(row(2)[20:] + "nonsense\n" + row(3))
    assert file.refresh()
    assert [line.trial for line in file.lines] == [1, 2, 3]
    (tmp_path / "new").write_text(row(7))
    os.replace(tmp_path / "new", path)
    assert file.refresh()
    assert [line.trial for line in file.lines] == [7]


def test_page_grows_with_its_journal(served):
    """A tag saves the transfer as long as nothing has changed."""
    journal, page, port = served
    status, headers, body = get(port)
    assert (status, headers["X-Session"]) == (200, "running")
    assert "No chaos test has run" in body
    assert '<html lang="en" data-live>' in body
    assert "connect-src 'self'" in body
    tag = headers["ETag"]
    assert get(port, **{"If-None-Match": tag})[0] == 304
    journal.write_text(row(1) + row(2, "failed"))
    timings_path(journal).write_text(
        Line("t.py::t", 0, entries.Progress(what="schedules", done=2, total=50, bad=1)).text()
        + "\n"
    )
    for _ in range(100):
        status, headers, body = get(port, **{"If-None-Match": tag})
        if status == 200:
            break
        time.sleep(0.05)
    assert "2 of 50 schedules tried, 1 bad." in body
    assert headers["ETag"] != tag
    page.end()
    assert get(port)[1]["X-Session"] == "ended"
    for _ in range(100):  # the server notes it after the reply
        if page.saw_the_end:
            break
        time.sleep(0.05)
    assert page.saw_the_end


def test_page_rests_between_renderings(tmp_path):
    """A long journal does not keep the machine busy."""
    now = [0.0]
    journal = tmp_path / "j.jsonl"
    journal.write_text(row(1))
    page = LivePage(journal, lambda: now[0])
    render, cost = page._render, 2.0

    def slow():
        render()
        now[0] += cost

    page._render = slow
    first = page.current()[1]
    with journal.open("a") as file:
        file.write(row(2))
    now[0] += 7.9
    assert page.current()[1] == first
    now[0] += 0.2
    assert page.current()[1] != first


def test_page_is_watched_until_it_saw_the_end(tmp_path):
    """A page that was closed is not waited for."""
    now = [0.0]
    journal = tmp_path / "j.jsonl"
    journal.write_text(row(1))
    page = LivePage(journal, lambda: now[0])
    assert not page.is_watched()
    page.current()
    assert page.is_watched()
    now[0] += 4
    assert not page.is_watched()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", ""])
def test_other_names_of_the_host_are_refused(served, host):
    """A site that points its name to loopback cannot read the page."""
    status, _, body = get(served[2], Host=host)
    assert status == 403
    assert "html" not in body


def test_other_paths_are_not_found(served):
    """The server reads no file."""
    assert get(served[2], "/../../etc/passwd")[0] == 404
    assert get(served[2], "/?x=1")[0] == 200


def test_server_listens_on_loopback_alone(served):
    """Other machines cannot reach it."""
    port = served[2]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")] == [
        f"0100007F:{port:04X}"
    ]


@pytest.mark.parametrize("given", ["tests", "-1", "70000", "", "8.5"])
def test_port_must_be_a_port(given):
    """A path after the option is the likely mistake."""
    with pytest.raises(
        BadArgument, match=re.escape("--mlchaos-live must be a port from 0 to 65535, got")
    ):
        port_of(given)
    assert port_of("8080") == 8080


@contextlib.contextmanager
def session(folder, *arguments):
    """A session of pytest, its process and the port of its live report."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    process = subprocess.Popen(
        [*command, "-o", "asyncio_default_fixture_loop_scope=function"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        port = 0
        for line in process.stdout:
            if found := re.search(r"live report at http://127\.0\.0\.1:(\d+)/", line):
                port = int(found[1])
                break
        yield process, port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def children(pid):
    """The live servers that a process has started."""
    return [
        int(child)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if b"html.live" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def until(condition, seconds=20):
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def is_gone(pid):
    """True if the process has ended."""
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def project(tmp_path):
    """A folder with tests, one of which waits for the file ``go``."""
    (tmp_path / "test_file.py").write_text(TESTS)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_session_is_shown_while_it_runs(project, workers):
    """The first test is there before the last one has begun. At the end, everything is."""
    if workers:
        pytest.importorskip("xdist")
    with session(project, "--mlchaos-live", *workers) as (process, port):
        (server,) = children(process.pid)
        assert until(lambda: "test_first" in get(port)[2])
        assert get(port)[1]["X-Session"] == "running"
        (project / "go").touch()
        replies = []

        def ended():
            replies.append(get(port))
            return replies[-1][1]["X-Session"] == "ended"

        assert until(ended)
        assert "test_last" in replies[-1][2]
        assert "1 of 2 chaos tests fails" in replies[-1][2]
        assert process.wait(20) == 1
        assert is_gone(server)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_server_ends_with_a_killed_session(project, number):
    """Nothing is left, however the session ends."""
    with session(project, "--mlchaos-live=0") as (process, port):
        (server,) = children(process.pid)
        assert get(port)[0] == 200
        process.send_signal(number)
        process.wait(20)
        assert until(lambda: is_gone(server))
        with pytest.raises(OSError):
            get(port)


def test_server_imports_no_module_of_the_current_directory(tmp_path, monkeypatch):
    """A project may have a module with the name of one that the server needs."""
    (tmp_path / "http.py").write_text("raise ImportError('this is not the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    live = LiveReport(0, None)
    try:
        address = live._start()
        server = live._server.pid
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert server in TOOL_PROCESSES
        assert get(int(address.rstrip("/").rpartition(":")[2]))[0] == 200
    finally:
        live.pytest_unconfigure()
    assert is_gone(server)
    assert server not in TOOL_PROCESSES
    assert not Path(live.journal).parent.exists()


@pytest.mark.slow
def test_live_report_changes_no_journal(project):
    """The server is not taken for a process of the test: the clock stays virtual."""
    (project / "go").touch()
    journals = []
    for number, arguments in enumerate([(), ("--mlchaos-live",)]):
        journal = project / f"{number}.jsonl"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
        ]
        subprocess.run(
            [
                *command,
                "-o",
                "asyncio_default_fixture_loop_scope=function",
                f"--mlchaos-journal={journal}",
                *arguments,
            ],
            cwd=project,
            stdout=subprocess.DEVNULL,
        )
        journals.append(journal.read_text())
    assert journals[0] == journals[1]
    ends = [json.loads(line) for line in journals[0].splitlines()]
    assert [end["outcome"] for end in ends if end["kind"] == "test"] == ["passed", "failed"]
    assert not any(end.get("real_clock") for end in ends)


def test_used_port_ends_the_session_with_one_line(project):
    """It names the port and the reason."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", f"--mlchaos-live={port}", "-p", "no:cacheprovider"],
            cwd=project,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 4
    assert (
        f"--mlchaos-live: port {port} of 127.0.0.1 cannot be used: Address already in use"
        in done.stderr
    )


def test_path_after_the_option_is_explained(project):
    """Argparse takes it for the port."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--mlchaos-live",
            "test_file.py",
            "-p",
            "no:cacheprovider",
        ],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert (
        "--mlchaos-live must be a port from 0 to 65535, got 'test_file.py'. Before a path, write "
        "--mlchaos-live=0, which takes any port"
    ) in done.stderr


def test_synthetic_journal_is_served(tmp_path):
    """All kinds of tests, with their timings."""
    journal = tmp_path / "j.jsonl"
    synthetic_journal.write_journal(journal, 60)
    body = LivePage(journal).current()[0].decode()
    assert "12 of 50 schedules tried, 0 bad." in body
    assert "7.49 s" in body
