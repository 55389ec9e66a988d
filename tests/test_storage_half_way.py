"""Storage that breaks half-way: transfers that stop, full disks, outages."""

from __future__ import annotations

import concurrent.futures
import os
import time

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.faults.files.layouts import spots
from tests.storage import armed


def test_a_local_read_breaks_after_a_share_of_the_file(tmp_path):
    """The beginning arrives, then each further read fails. A second open reads all of it."""
    (tmp_path / "a").write_bytes(bytes(100))
    fault = create("flaky_storage", op="read", after=0.4, at=0)
    with armed(tmp_path, fault) as controller:
        with open(tmp_path / "a", "rb", buffering=0) as file:
            assert len(file.read(30)) == 30
            assert not controller.journal.lines()
            assert len(file.read(30)) == 10
            for _ in range(2):
                with pytest.raises(OSError, match="injected"):
                    file.read(30)
        assert len((tmp_path / "a").read_bytes()) == 100
    assert len(controller.journal.lines()) == 1


def test_a_local_read_of_everything_fails(tmp_path):
    """A read to the end of the file loses the beginning, as in the kernel."""
    (tmp_path / "a").write_bytes(bytes(100))
    fault = create("flaky_storage", op="read", after=40, at=0)
    with armed(tmp_path, fault), pytest.raises(OSError):
        (tmp_path / "a").read_bytes()


def test_a_point_beyond_the_end_does_not_strike(tmp_path):
    """The file is shorter than the point."""
    (tmp_path / "a").write_bytes(bytes(100))
    with armed(tmp_path, create("flaky_storage", after="1KiB", op="read", at=0)) as controller:
        assert len((tmp_path / "a").read_bytes()) == 100
    assert not controller.journal.lines()


@pytest.mark.parametrize(("after", "left"), [(0.4, 40), (25, 25), (0, 0)])
def test_a_local_write_breaks_half_way(tmp_path, after, left):
    """The beginning is written, and the flush at the close fails again."""
    fault = create("flaky_storage", op="write", after=after, at=0)
    with armed(tmp_path, fault) as controller, pytest.raises(OSError):
        (tmp_path / "a").write_bytes(bytes(100))
    assert (tmp_path / "a").stat().st_size == left
    assert len(controller.journal.lines()) == 1


def test_a_write_breaks_at_an_offset_that_a_later_write_reaches(tmp_path):
    """The offset counts from the beginning of the file."""
    fault = create("flaky_storage", op="write", after=150, at=0)
    with armed(tmp_path, fault), open(tmp_path / "a", "wb", buffering=0) as file:
        assert file.write(bytes(100)) == 100
        assert file.write(bytes(100)) == 50
        with pytest.raises(OSError):
            file.write(bytes(50))


def test_transfers_of_a_memory_filesystem_break_half_way(tmp_path):
    """Streams get the beginning. Objects arrive as a whole or not at all."""
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    fs.pipe("/half/a", bytes(100))
    with armed(tmp_path, create("flaky_storage", op="read", after=0.4, at=0)):
        file = fs.open("/half/a")
        assert len(file.read(64)) == 40
        with pytest.raises(OSError):
            file.read(64)
    with armed(tmp_path, create("flaky_storage", op="read", after=0.4, at=0)):
        with pytest.raises(OSError):
            fs.get("/half/a", f"{tmp_path}/a")
        assert os.path.getsize(tmp_path / "a") == 40
    with (
        armed(tmp_path, create("flaky_storage", op="read", after=0.4, at=0)),
        pytest.raises(OSError),
    ):
        fs.cat("/half/a")
    with armed(tmp_path, create("flaky_storage", op="write", after=0.4, at=0)) as controller:
        with pytest.raises(OSError):
            fs.pipe("/half/a", b"new")
        assert fs.cat("/half/a") == bytes(100)
    assert len(controller.journal.lines()) == 1
    fs.rm("/half", recursive=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("FileNotFoundError", "FileNotFoundError"),
        ("httpx.ReadTimeout", "ReadTimeout"),
        ("aiohttp.ClientPayloadError", "ClientPayloadError"),
        ("botocore.ReadTimeoutError", "ReadTimeoutError"),
        ("botocore.IncompleteReadError", "IncompleteReadError"),
        ("requests.ChunkedEncodingError", "ChunkedEncodingError"),
        ("SlowDown", "ClientError"),
    ],
)
def test_an_error_is_made_by_its_name(tmp_path, name, kind):
    """Each backend has its own classes."""
    pytest.importorskip("botocore" if name == "SlowDown" else name.partition(".")[0]) if (
        "." in name or name == "SlowDown"
    ) else None
    (tmp_path / "a").write_bytes(b"1")
    with (
        armed(tmp_path, create("flaky_storage", error=name, op="open", at=0)),
        pytest.raises(Exception) as caught,  # each case has its own type
    ):
        open(tmp_path / "a").close()
    assert type(caught.value).__name__ == kind


def test_an_unknown_error_is_refused():
    """The message names what may be given."""
    with pytest.raises(BadArgument, match=r"'SlowDown'.*did you mean 'httpx\.ReadTimeout'"):
        create("flaky_storage", error="httpx.ReadTimeou")


def test_a_disk_stays_full_until_a_file_is_removed(tmp_path):
    """A write takes effect up to the last free byte, and a removed file gives its bytes back."""
    (tmp_path / "old").write_bytes(bytes(50))
    with armed(tmp_path, create("disk_full", after=30, at=0)) as controller:
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "a").write_bytes(bytes(100))
        assert (tmp_path / "a").stat().st_size == 30
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "b").write_bytes(b"1")
        (tmp_path / "a").write_bytes(bytes(30))
        (tmp_path / "old").unlink()
        (tmp_path / "b").write_bytes(bytes(50))
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "c").write_bytes(b"1")
    assert len(controller.journal.lines()) == 1


def test_a_real_limit_stops_a_writer_at_its_byte(tmp_path, capfd):
    """C++ code meets it, Python's own output does not, and afterwards the limit is gone."""
    pa = pytest.importorskip("pyarrow")

    def write(name):
        with pa.OSFile(str(tmp_path / name), "wb") as file:
            file.write(bytes(200))

    fault = create("disk_full", real=True, after=100, at=1)
    with armed(tmp_path, fault, own=tmp_path) as controller:
        write("first")
        with pytest.raises(OSError, match="File too large") as caught:
            write("second")
        print("x" * 200, flush=True)
        assert controller.is_injected(caught.value)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "python").write_bytes(bytes(200))
    assert (tmp_path / "second").stat().st_size == 100
    assert (tmp_path / "python").stat().st_size == 100
    (strike,) = controller.journal
    assert (strike.visit, strike.details["path"]) == (1, "second")
    (tmp_path / "python").write_bytes(bytes(200))


def test_an_outage_ends_by_the_clock(tmp_path):
    """Operations fail until the duration has passed."""
    (tmp_path / "a").write_bytes(b"1")
    with armed(tmp_path, create("storage_outage", duration="50ms", path="a", at=0)) as controller:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                (tmp_path / "a").read_bytes()
        (tmp_path / "b").write_bytes(b"1")
        time.sleep(0.06)
        assert (tmp_path / "a").read_bytes() == b"1"
    assert len(controller.journal.lines()) == 1


def test_operations_wait_for_the_end_of_an_outage_that_hangs(tmp_path):
    """Each of them works afterwards."""
    start = time.monotonic()
    with armed(tmp_path, create("storage_outage", duration="50ms", how="hangs", at=0)):
        (tmp_path / "a").write_bytes(b"1")
        (tmp_path / "b").write_bytes(b"1")
    assert 0.05 <= time.monotonic() - start < 5


def test_a_lost_permission_leaves_open_files_usable(tmp_path):
    """Only what needs it fails."""
    (tmp_path / "a").write_bytes(b"12")
    with (
        armed(tmp_path, create("permission_lost", at=1)),
        open(tmp_path / "a", "rb", buffering=0) as file,
    ):
        with pytest.raises(PermissionError):
            open(tmp_path / "a").close()
        assert file.read() == b"12"
        with pytest.raises(PermissionError):
            os.remove(tmp_path / "a")


def test_an_open_works_again_when_a_file_was_closed(tmp_path):
    """The limit counts the descriptors of the process."""
    with armed(tmp_path, create("too_many_files", at=1)):
        first = open(tmp_path / "a", "w")
        for _ in range(2):
            with pytest.raises(OSError, match="Too many open files"):
                open(tmp_path / "b", "w").close()
        first.close()
        open(tmp_path / "b", "w").close()


def test_two_real_limits_leave_no_limit(tmp_path):
    """The smaller one holds, and afterwards the process is as before."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    first, second = (create("disk_full", real=True, after=size, at=0) for size in (100, 50))
    with armed(tmp_path, first, second), pytest.raises(OSError, match="No space left"):
        (tmp_path / "a").write_bytes(bytes(200))
    assert (tmp_path / "a").stat().st_size == 50
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


def test_a_short_write_returns_what_it_wrote(tmp_path):
    """Buffered files write the rest. Callers without a buffer must."""
    with armed(tmp_path, create("short_write", keep=0.25, at=[0, 2])):
        fd = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
        assert os.write(fd, bytes(100)) == 25
        assert os.write(fd, bytes(75)) == 75
        os.close(fd)
        (tmp_path / "b").write_bytes(bytes(100))
    assert (tmp_path / "a").stat().st_size == (tmp_path / "b").stat().st_size == 100


@pytest.mark.parametrize(("keywords", "left"), [({"byte": 0.5}, 4), ({"byte": 3}, 3), ({}, None)])
def test_a_torn_write_is_cut_without_an_error(tmp_path, keywords, left):
    """Without a byte, it is cut at the most telling place."""
    left = spots(b"a,b\n1,2\n", "a.csv")[0].offset if left is None else left
    with (
        armed(tmp_path, create("torn_write", at=0, **keywords)) as controller,
        open(tmp_path / "a.csv", "wb", buffering=0) as file,
    ):
        assert file.write(b"a,b\n1,2\n") == 8
        assert file.write(b"3,4\n") == 4
        assert file.tell() == 12
    assert (tmp_path / "a.csv").stat().st_size == left
    assert len(controller.journal.lines()) == 1


@pytest.mark.parametrize(("name", "left"), [("lost_write", b"old"), ("torn_write", b"n")])
def test_an_object_is_lost_or_torn_without_an_error(tmp_path, name, left):
    """A lost one keeps its old content."""
    fs = pytest.importorskip("fsspec").filesystem("memory")
    fs.pipe("/lost/a", b"old")
    more = {"byte": 1} if name == "torn_write" else {}
    with armed(tmp_path, create(name, at=0, **more)) as controller:
        fs.pipe("/lost/a", b"new")
        assert fs.cat("/lost/a") == left
    assert len(controller.journal.lines()) == 1
    fs.rm("/lost", recursive=True)


def test_a_lost_write_leaves_an_empty_file(tmp_path):
    """Opening it has truncated it."""
    (tmp_path / "a").write_bytes(b"old")
    with armed(tmp_path, create("lost_write", at=0)):
        (tmp_path / "a").write_bytes(b"new")
    assert (tmp_path / "a").read_bytes() == b""


def test_a_read_of_a_descriptor_breaks_half_way(tmp_path):
    """``os.read`` gets the beginning, and the next open gets everything."""
    (tmp_path / "a").write_bytes(bytes(100))
    with armed(tmp_path, create("flaky_storage", op="read", after=0.4, at=0)):
        fd = os.open(tmp_path / "a", os.O_RDONLY)
        assert len(os.read(fd, 100)) == 40
        with pytest.raises(OSError):
            os.read(fd, 100)
        os.close(fd)
        fd = os.open(tmp_path / "a", os.O_RDONLY)
        assert len(os.read(fd, 100)) == 100
        os.close(fd)


def test_transfers_share_the_bandwidth_of_a_slow_disk(tmp_path):
    """Each of two threads waits for the bytes of both."""
    fault = create("slow_disk", bandwidth="100KB/s", at=0)
    start = time.monotonic()
    with (
        armed(tmp_path, fault) as controller,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        list(threads.map(lambda name: (tmp_path / name).write_bytes(bytes(5000)), "ab"))
    assert time.monotonic() - start >= 0.1
    assert len(controller.journal.lines()) == 1


def test_a_busy_disk_gets_slower_with_its_load(tmp_path):
    """The third operation waits three times as long as the first."""
    with armed(tmp_path, create("busy_disk", latency="5ms", at=0)):
        waits = []
        with open(tmp_path / "a", "wb", buffering=0) as file:
            for _ in range(3):
                start = time.monotonic()
                file.write(b"1")
                waits.append(time.monotonic() - start)
    assert waits[0] >= 0.01
    assert waits[2] >= 0.02
