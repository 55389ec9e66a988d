"""Provide the cases for the faults of calls, storage and serving."""

from __future__ import annotations

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.storage import Listing, Operation, Reread, StoredFile
from pytest_mlchaos.testing import Case


def arguments():
    """Return the arguments of a call."""
    return (), {}


def cut_at(operation):
    """Return the length of a file of 1000 bytes for its reader, or 50 for the file "small"."""
    return operation.ends_at(50 if operation.path == "small" else 1000)


def table_file():
    """Return a file at rest."""
    return StoredFile("in/a.csv", given=b"id,name\n1,a\n2,b\n3,c\n")


def what_is_found(file):
    """Return what a reader finds in a file at rest."""
    if file.took_effect is not None:
        file.took_effect()
    return file.read(), file.absent, file.delay, file.beside


def stopped(operation):
    """Return the bytes of 1000 that pass, or raise the error at which the transfer stops."""
    if operation.breaks is not None:
        operation.breaks.stop()
    return 1000


def write_of_1000():
    """Return a write."""
    return Operation("write", "a/b")


def passing(operation):
    """Return the bytes of 1000 that pass."""
    if operation.breaks is None:
        return 1000
    passed = operation.breaks.passes(1000)
    operation.breaks.stop()
    return passed


CASES = {
    "crash": Case(create("crash"), object, sticky=True),
    "call_failure": Case(
        create("call_failure", target="a:b", error=OSError(5, "I/O")),
        arguments,
        bad=[{"error": "NoSuchError"}, {"target": " "}],
    ),
    "call_delay": Case(
        create("call_delay", target="a:b", delay="1ms"), arguments, bad=[{"delay": "soon"}]
    ),
    "latency_spike": Case(create("latency_spike", delay="1ms"), object, bad=[{"delay": -1}]),
    "dependency_failure": Case(create("dependency_failure", target="a:b"), arguments),
    "slow_storage": Case(
        create("slow_storage", delay="1ms", bandwidth="1MB/s"),
        lambda: Operation("read", "a/b"),
        bad=[{"bandwidth": "fast"}],
    ),
    "flaky_storage": Case(
        create("flaky_storage", error="ENOSPC"),
        lambda: Operation("rename", "a/b", "a/c"),
        bad=[{"error": "EWHAT"}],
    ),
    "flaky_storage half-way": Case(
        create("flaky_storage", after=0.5),
        lambda: Operation("read", "a/b"),
        operation=stopped,
        bad=[{"after": 1.5}, {"after": "half"}, {"op": "rename"}, {"when": "after"}],
    ),
    "storage_outage": Case(
        create("storage_outage"),
        lambda: Operation("read", "a/b"),
        bad=[{"duration": "0s"}, {"duration": "soon"}, {"how": "sleeps"}, {"error": "EWHAT"}],
    ),
    "permission_lost": Case(
        create("permission_lost"), lambda: Operation("open", "a/b"), bad=[{"path": " "}]
    ),
    "too_many_files": Case(
        create("too_many_files"), lambda: Operation("open", "a/b"), bad=[{"spare": -1}]
    ),
    "disk_full": Case(
        create("disk_full"),
        lambda: Operation("write", "a/b"),
        operation=stopped,
        bad=[{"after": "much"}, {"after": -1}, {"real": "yes"}],
    ),
    "slow_disk": Case(
        create("slow_disk"),
        lambda: Operation("read", "a/b"),
        operation=lambda operation: operation.seconds_for(100),
        bad=[{"bandwidth": "fast"}],
    ),
    "busy_disk": Case(
        create("busy_disk"), lambda: Operation("read", "a/b"), bad=[{"latency": "0s"}]
    ),
    "stale_read": Case(create("stale_read"), lambda: Reread("a/b", b"old"), bad=[{"path": " "}]),
    "stale_listing": Case(
        create("stale_listing"), lambda: Listing("a", ("new",), ("gone",)), bad=[{"path": " "}]
    ),
    "short_write": Case(
        create("short_write"), write_of_1000, operation=passing, bad=[{"keep": 1.5}, {"keep": -1}]
    ),
    "torn_write": Case(
        create("torn_write", byte=0.5),
        write_of_1000,
        operation=passing,
        bad=[{"byte": 1.5}, {"byte": "much"}, {"spot": -1}],
    ),
    "lost_write": Case(create("lost_write"), write_of_1000, operation=passing, bad=[{"path": " "}]),
    "slow_storage by its bandwidth": Case(
        create("slow_storage", bandwidth="1MB/s"),
        lambda: Operation("read", "a/b"),
        operation=lambda operation: operation.seconds_for(0 if operation.path == "empty" else 100),
        neutral=lambda: Operation("read", "empty"),
    ),
    "truncated_read at a searched place": Case(
        create("truncated_read", spot=2),
        lambda: Operation("read", "a/b"),
        operation=cut_at,
        bad=[{"spot": -1}],
    ),
    "truncated_read": Case(
        create("truncated_read", keep=100),
        lambda: Operation("read", "a/b"),
        operation=cut_at,
        neutral=lambda: Operation("read", "small"),
        bad=[{"keep": -1}],
    ),
    "damaged_file": Case(
        create("damaged_file", spot=0),
        table_file,
        operation=what_is_found,
        neutral=lambda: StoredFile("in/empty.csv"),
        bad=[{"offset": -1}, {"path": " "}, {"path": "s3://bucket/*"}, {"delay": "soon"}],
    ),
    "schema_drift in a file": Case(
        create("schema_drift", kind="renamed", column="name", file="in/*.csv"),
        table_file,
        operation=what_is_found,
        bad=[{"file": " "}, {"target": "a:b"}],
        wrong=[lambda: StoredFile("in/a.bin", given=b"x")],
    ),
}
