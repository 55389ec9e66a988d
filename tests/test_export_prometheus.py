"""Prometheus: metrics in a file or at a push gateway, and the dashboard that shows them."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from pytest_mlchaos.errors import BadArgument, MissingExtra
from pytest_mlchaos.reports.exports import prometheus
from tests.session_logs import everything, session

DASHBOARD = Path(__file__).parent.parent / "docs" / "grafana" / "mlchaos.json"
METRIC = re.compile(r"\b(mlchaos_\w+)(?:\{([^}]*)\})?")
START_SECONDS = 60


@pytest.fixture
def client():
    """The library."""
    return pytest.importorskip("prometheus_client", reason="needs prometheus_client")


def samples(text):
    """Read metrics as Prometheus does: the value for each name and set of labels."""
    from prometheus_client.parser import text_string_to_metric_families as parse

    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def labels(found, name):
    """Return the values of one metric by its labels, without the test's file."""
    return {
        tuple(value.rpartition("::")[2] for _, value in pairs): value_
        for (metric, pairs), value_ in found.items()
        if metric == name
    }


def test_the_file_has_what_happened(client, tmp_path):
    """Counts are by test, fault, site and verdict."""
    target = tmp_path / "mlchaos.prom"
    prometheus.write(everything(), str(target))
    found = samples(target.read_text())
    assert labels(found, "mlchaos_trials_total")["failed", "test_search"] == 3
    assert labels(found, "mlchaos_strikes_total") == {
        ("call_failure", "call", "test_own_error"): 1,
        ("crash", "train.step", "test_passes"): 1,
        ("crash", "train.step", "test_search"): 2,
        ("gpu_oom", "train.step", "test_search"): 2,
    }
    assert labels(found, "mlchaos_crash_states_total") == {
        ("test_any_moment", "diverged"): 2,
        ("test_any_moment", "failed"): 2,
        ("test_any_moment", "recovered"): 1,
    }
    assert labels(found, "mlchaos_visits_total")["train.step", "test_passes"] == 13
    assert labels(found, "mlchaos_lost_steps_max") == {("test_any_moment",): 3}
    assert labels(found, "mlchaos_restart_seconds") == {("test_any_moment",): 0.09}
    assert labels(found, "mlchaos_session_start_time_seconds") == {(): 1_780_000_000}
    assert labels(found, "mlchaos_failures_total")["NotRecovered", "test_search"] == 1
    assert labels(found, "mlchaos_tests_total")["failed", "test_passes"] == 0


def test_labels_are_bounded(client):
    """A test counts once, whatever its parameters. A target does not follow a site's name."""
    from pytest_mlchaos.core import entries

    tests = [f"t.py::test_it[{number}]" for number in range(50)]
    visits = {"call json:dumps": 2, "call json:loads": 3}
    many = session(
        *((one, 1, entries.Trial(outcome="passed", visits=visits)) for one in tests),
        *((one, 0, entries.Test(outcome="passed")) for one in tests),
        *((one, 0, entries.Timing(of="test", seconds=0.5)) for one in tests),
    )
    found = samples(client.generate_latest(prometheus.registry(many)).decode())
    assert labels(found, "mlchaos_tests_total") == {
        ("passed", "test_it"): 50,
        ("failed", "test_it"): 0,
    }
    assert labels(found, "mlchaos_visits_total") == {("call", "test_it"): 250}
    assert labels(found, "mlchaos_test_duration_seconds") == {("test_it",): 25}


def test_the_library_of_prometheus_finds_no_fault(client, tmp_path):
    """Its linter knows the conventions of names."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (the Debian package prometheus)")
    text = client.generate_latest(prometheus.registry(everything()))
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_an_empty_session_is_a_valid_file(client, tmp_path):
    """A session without a chaos test has no samples."""
    target = tmp_path / "mlchaos.prom"
    prometheus.write(session(), str(target))
    assert samples(target.read_text()) == {}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("metrics.txt", "must end in .prom, because the node exporter reads no other files"),
        ("", "must end in .prom"),
        ("ftp://127.0.0.1/x", "must be a file or a URL with http, got 'ftp://127.0.0.1/x'"),
        ("http://", "must be a file or a URL with http"),
    ],
)
def test_a_wrong_target_is_refused(client, target, message):
    """At the start, in one line."""
    with pytest.raises(BadArgument, match=message) as caught:
        prometheus.check(target)
    assert "\n" not in str(caught.value)


def test_a_directory_or_an_unwritable_file_is_refused(client, tmp_path):
    """At the start, in one line."""
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(BadArgument, match="--mlchaos-prometheus must be a file"):
        prometheus.check(str(tmp_path / "folder.prom"))
    (tmp_path / "file").touch()
    with pytest.raises(BadArgument, match="cannot be written"):
        prometheus.check(str(tmp_path / "file" / "x.prom"))


def test_a_missing_library_is_named(monkeypatch):
    """The error has the command that installs it."""
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(MissingExtra, match=re.escape("install 'pytest-mlchaos[prometheus]'")):
        prometheus.check("x.prom")


def test_metrics_are_pushed(client):
    """A URL is a push gateway."""
    received = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, body.decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with served(Gateway) as address:
        prometheus.check(address)
        prometheus.write(everything(), address)
    ((path, text),) = received
    assert path == "/metrics/job/pytest-mlchaos"
    assert labels(samples(text), "mlchaos_trials_total")["failed", "test_search"] == 3


def test_an_unreachable_gateway_is_an_os_error(client):
    """The session reports it in one line, and does not fail."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        prometheus.write(everything(), f"http://127.0.0.1:{port}")


# -- the dashboard ---------------------------------------------------------------------------------


def queries():
    """Return all queries of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    variables = [one["definition"] for one in board["templating"]["list"] if "definition" in one]
    return panels, variables


def test_the_dashboard_fits_the_metrics():
    """Each metric in a query exists, with each label that the query names. Each is shown."""
    known = {f"{name}_total": set(names) for name, (_, names) in prometheus.COUNTERS.items()}
    known |= {name: set(names) for name, (_, names) in prometheus.GAUGES.items()}
    shown = set()
    for query in itertools.chain(*queries()):
        found = METRIC.findall(query)
        assert found, query
        grouped = re.findall(r"by \(([^)]*)\)", query)
        for name, matchers in found:
            assert name in known, query
            used = set(re.findall(r"(\w+)[!=]", matchers)) - {"job"}
            used |= {label.strip() for labels in grouped for label in labels.split(",")}
            assert used <= known[name], (query, used - known[name])
            shown.add(name)
    assert shown == known.keys()


def test_the_dashboard_is_one_that_grafana_imports():
    """Panels have distinct ids, do not overlap, and take the chosen data source."""
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert board["uid"]
    assert {one["name"] for one in board["templating"]["list"]} == {"datasource", "job", "test"}


# -- a real server ---------------------------------------------------------------------------------


@contextlib.contextmanager
def served(handler):
    """Serve HTTP on loopback, and give the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def started(program, *arguments):
    """Run a server on a free port of loopback, and end it."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program} (the Debian package {program})")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with subprocess.Popen(
        [path, f"--web.listen-address={address}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until(lambda: asked(f"http://{address}/-/ready") is not None)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def asked(address):
    """Return what a server answers, or None if it does not."""
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.read().decode()
    except OSError:
        return None


def until(condition):
    """Wait until a condition is true, and return its value."""
    end = time.monotonic() + START_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "the server did not answer in time"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def prometheus_for(target, folder):
    """Run Prometheus, which scrapes one address."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: mlchaos\n"
        "    honor_labels: true\n"
        f"    static_configs: [{{targets: ['{target}']}}]\n"
    )
    storage = f"--storage.tsdb.path={folder / 'data'}"
    with started("prometheus", f"--config.file={config}", storage) as address:
        yield address


def query(address, text):
    """Return the samples of a query."""
    reply = asked(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': text})}")
    assert reply is not None, text
    return json.loads(reply)["data"]["result"]


@pytest.mark.slow
def test_a_real_prometheus_scrapes_the_file(client, tmp_path):
    """It takes each metric, and each query of the dashboard has an answer."""
    file = tmp_path / "mlchaos.prom"
    prometheus.write(everything(), str(file))

    class Exporter(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(file.read_bytes())

        def log_message(self, *args):
            pass

    with (
        served(Exporter) as exporter,
        prometheus_for(exporter.removeprefix("http://"), tmp_path) as server,
    ):
        until(lambda: query(server, "mlchaos_tests_total"))
        (up,) = query(server, "up")
        assert up["value"][1] == "1"
        (failed,) = query(server, 'sum(mlchaos_trials_total{outcome="failed"})')
        assert failed["value"][1] == "6"
        panels, _ = queries()
        for text in panels:
            text = text.replace("$job", ".*").replace("$test", ".*")
            assert query(server, text), text


@pytest.mark.slow
def test_a_real_push_gateway_keeps_the_metrics(client, tmp_path):
    """Prometheus scrapes them there."""
    with started("prometheus-pushgateway") as gateway:
        prometheus.write(everything(), gateway)
        text = asked(f"{gateway}/metrics")
        assert 'mlchaos_strikes_total{fault="gpu_oom",instance="",job="pytest-mlchaos"' in text
        with prometheus_for(gateway.removeprefix("http://"), tmp_path) as server:
            until(lambda: query(server, "mlchaos_tests_total"))
            (failed,) = query(server, 'sum(mlchaos_trials_total{job="pytest-mlchaos"})')
            assert failed["value"][1] == "10"
