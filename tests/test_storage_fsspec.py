"""Storage: fsspec filesystems, sync and async, and clients that only look like one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import weakref

import pytest

fsspec = pytest.importorskip("fsspec")

from fsspec.asyn import AsyncFileSystem  # noqa: E402
from fsspec.implementations.dirfs import DirFileSystem  # noqa: E402
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem  # noqa: E402

from pytest_mlchaos.core.faults import EVERY, create  # noqa: E402
from pytest_mlchaos.sites.storage.clients import watch_filesystem  # noqa: E402
from tests.storage import armed, counts, made, watching  # noqa: E402

CONTENT = bytes(range(200)) * 50


@pytest.fixture
def memory():
    """A memory filesystem with nothing in it."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    return fs


class Object(AsyncFileSystem):
    """An object store in a dictionary, asynchronous; made for these tests."""

    protocol = ("object", "obj")
    cachable = False

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.store = {}
        self.requests = []

    async def _cat_file(self, path, start=None, end=None, **kwargs):
        self.requests.append(("GET", path))
        return self.store[self._strip_protocol(path)][start:end]

    async def _pipe_file(self, path, value, mode="overwrite", **kwargs):
        self.requests.append(("PUT", path))
        self.store[self._strip_protocol(path)] = value

    async def _rm_file(self, path, **kwargs):
        del self.store[self._strip_protocol(path)]

    async def _cp_file(self, path1, path2, **kwargs):
        self.store[path2] = self.store[path1]

    async def _info(self, path, **kwargs):
        path = self._strip_protocol(path)
        if path not in self.store:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.store[path]), "type": "file"}

    async def _ls(self, path, detail=True, **kwargs):
        return [await self._info(path)] if detail else [path]

    def _open(self, path, mode="rb", **kwargs):
        return ObjectFile(self, path, mode, **kwargs)


class ObjectFile(AbstractBufferedFile):
    """Its files, uploaded in parts."""

    def _fetch_range(self, start, end):
        return self.fs.cat_file(self.path, start, end)

    def _initiate_upload(self):
        self.parts = []

    def _upload_chunk(self, final=False):
        self.parts.append(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self):
        self.fs.store[self.path] = b"".join(self.parts)


@pytest.fixture(params=["memory", "object"])
def fs(request, memory):
    """One filesystem of each kind, made before any trial, with a file in it."""
    made_fs = memory if request.param == "memory" else Object()
    made_fs.pipe("/bucket/a" if request.param == "memory" else "bucket/a", CONTENT)
    return made_fs


def key(fs, name):
    """A path as this filesystem writes it."""
    return f"/bucket/{name}" if isinstance(fs, MemoryFileSystem) else f"bucket/{name}"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda fs, k: fs.cat(k("a")), {"read": 1}),
        (lambda fs, k: fs.cat_file(k("a")), {"read": 1}),
        (lambda fs, k: fs.read_bytes(k("a")), {"read": 1}),
        (lambda fs, k: fs.pipe(k("b"), b"1"), {"write": 1}),
        (lambda fs, k: fs.pipe({k("b"): b"1", k("c"): b"2"}), {"write": 2}),
        (lambda fs, k: fs.cp(k("a"), k("b")), {"write": 1}),
        (lambda fs, k: fs.mv(k("a"), k("b")), {"rename": 1}),
        (lambda fs, k: fs.rm(k("a")), {"remove": 1}),
        (lambda fs, k: fs.rm_file(k("a")), {"remove": 1}),
        (lambda fs, k: fs.open(k("a")).read(), {"open": 1, "read": 1}),
        (lambda fs, k: fs.info(k("a")), {}),
        (lambda fs, k: fs.exists(k("a")), {}),
    ],
)
def test_methods_are_operations_counted_once(fs, tmp_path, action, expected):
    """The instance was made before the trial. Operations inside a method belong to it."""
    assert made(tmp_path, lambda: action(fs, lambda name: key(fs, name))) == expected


def test_a_file_is_opened_written_and_read(fs, tmp_path):
    """In binary and in text; requests of buffered files are the reads and writes."""

    def use():
        with fs.open(key(fs, "b"), "w") as file:
            json.dump({"a": 1}, file)
        with fs.open(key(fs, "b")) as file:
            assert json.load(file) == {"a": 1}

    assert made(tmp_path, use) == {"open": 2, "write": 1, "read": 1}


def test_a_buffered_file_writes_its_parts(tmp_path):
    """Each part is a request; completing it belongs to the last."""
    fs = Object()

    def use():
        with fs.open("bucket/b", "wb", block_size=100) as file:
            for _ in range(4):
                file.write(b"x" * 100)

    assert made(tmp_path, use) == {"open": 1, "write": 5}
    assert fs.store["bucket/b"] == b"x" * 400


def test_local_filesystems_are_left_to_the_local_files(tmp_path):
    """Their open is Python's: counted once, wherever it was called from."""
    fs, path = fsspec.filesystem("file"), str(tmp_path / "a")
    assert made(tmp_path, lambda: fs.pipe(path, b"1")) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: fs.cat(path)) == {"open": 1, "read": 1}
    assert made(tmp_path, lambda: fs.rm(path)) == {"remove": 1}
    with armed(tmp_path, create("flaky_storage", path="elsewhere*", at=EVERY)):
        fs.pipe(path, b"1")


def test_a_filesystem_that_changes_paths_leaves_it_to_the_one_behind_it(memory, tmp_path):
    """The operation is that of the whole path."""
    fs = DirFileSystem("/bucket", memory)
    memory.pipe("/bucket/a", b"1")
    with watching(tmp_path) as controller:
        fs.cat("a")
        fs.cat_file("a")
        with fs.open("a") as file:
            file.read()
    assert counts(controller) == {"read": 3, "open": 1}
    assert list(controller.names["storage"]) == ["/bucket/a"]


def test_copies_to_and_from_local_files_are_one_operation_each(memory, tmp_path):
    """That of the remote file."""
    memory.pipe("/a", b"1")
    assert made(tmp_path, lambda: memory.get("/a", str(tmp_path / "a"))) == {"read": 1}
    assert made(tmp_path, lambda: memory.put(str(tmp_path / "a"), "/b")) == {"write": 1}


def test_async_filesystems_are_seen_in_coroutines(tmp_path):
    """Awaited directly, one after the other and together; in the order in which they start."""
    fs = Object(asynchronous=True)

    async def use():
        await fs._pipe_file("bucket/a", b"1")
        await asyncio.gather(*(fs._pipe_file(f"bucket/{number}", b"1") for number in range(3)))
        assert await fs._cat_file("bucket/2") == b"1"

    with watching(tmp_path) as controller:
        asyncio.run(use())
    assert counts(controller) == {"write": 4, "read": 1}
    assert list(controller.names["storage"]) == ["bucket/a", "bucket/0", "bucket/1", "bucket/2"]


def test_a_delay_in_a_coroutine_lets_others_go_on(tmp_path):
    """It is awaited, not slept."""
    fs = Object(asynchronous=True)
    order = []

    async def put(name):
        await fs._pipe_file(name, b"1")
        order.append(name)

    async def use():
        await asyncio.gather(put("slow"), put("fast"))

    with armed(tmp_path, create("slow_storage", delay="50ms", path="slow", at=0)):
        asyncio.run(use())
    assert order == ["fast", "slow"]


def test_instances_and_classes_of_any_age_work(tmp_path):
    """Made before, in an earlier trial, in this one; a class that is defined only now."""
    old = Object()
    with watching(tmp_path):
        earlier = Object()
        earlier.pipe_file("x", b"1")
    with watching(tmp_path) as controller:

        class Later(Object):
            async def _pipe_file(self, path, value, **kwargs):
                await super()._pipe_file(path, value)

        for fs in (old, earlier, Object(), Later()):
            fs.pipe_file("x", b"1")
            fs.cat_file("x")
    assert counts(controller) == {"write": 4, "read": 4}


def test_everything_is_as_before_after_a_trial(tmp_path):
    """Base classes, implementations, the metaclass, the function that runs coroutines."""
    classes = (
        AbstractFileSystem,
        AsyncFileSystem,
        MemoryFileSystem,
        AbstractBufferedFile,
        Object,
        ObjectFile,
    )

    def state():
        return (
            [dict(vars(cls)) for cls in classes],
            fsspec.asyn.sync,
            type(AbstractFileSystem).__init__,
        )

    before = state()
    with watching(tmp_path):
        assert state() != before
        fs = Object()
    assert state() == before
    fs.pipe_file("x", b"1")
    assert fs.cat_file("x") == b"1"


@pytest.mark.parametrize(
    "pattern", ["bucket/a", "a", "*bucket/*", "obj://bucket/a", "object://bucket/*"]
)
def test_a_pattern_is_matched_with_and_without_the_protocol(tmp_path, pattern):
    """And by the last part."""
    fsspec.register_implementation("object", Object, clobber=True)
    fsspec.register_implementation("obj", Object, clobber=True)
    fs = Object()
    with armed(tmp_path, create("flaky_storage", path=pattern, at=99)) as controller:
        fs.pipe({"bucket/a": b"1", "other/b": b"2"})
    assert controller.passed() == {("storage", pattern): 1}


@pytest.mark.parametrize("when", ["before", "after"])
def test_before_and_after(tmp_path, when):
    """The object is there, or it is not; the caller gets the same error."""
    fs = Object()
    with armed(tmp_path, create("flaky_storage", error="EIO", when=when, at=0)) as controller:
        with pytest.raises(OSError, match="Input/output error"):
            fs.pipe_file("bucket/a", b"1")
        assert len(controller.journal) == 1
    assert ("bucket/a" in fs.store) == (when == "after")


def test_a_time_out_is_what_fsspec_makes_of_it(tmp_path):
    """And it is known to be injected: mlchaos.run restarts after it."""
    fs = Object()
    with armed(tmp_path, create("flaky_storage", error="timeout", at=0)) as controller:
        with pytest.raises(TimeoutError) as caught:
            fs.pipe_file("bucket/a", b"1")
        assert controller.is_injected(caught.value)


@pytest.mark.parametrize("cache", ["readahead", "bytes", "all", "none", "first"])
def test_a_truncated_read_of_a_buffered_file_ends_at_the_cut(tmp_path, cache):
    """Whatever is cached; the next open gets everything."""
    fs = Object()
    fs.pipe("bucket/a", CONTENT)

    def read():
        pieces = []
        with fs.open("bucket/a", cache_type=cache, block_size=1000) as file:
            while piece := file.read(300):
                pieces.append(piece)
        return b"".join(pieces)

    with armed(tmp_path, create("truncated_read", keep=0.5, at=0)):
        assert read() == CONTENT[:5000]
        assert read() == CONTENT


def test_a_truncated_read_of_whole_contents_and_other_files(memory, tmp_path):
    """``cat``, ``get``, and files that are not buffered, also in text mode."""
    memory.pipe("/a", b"0123456789")
    for read in (
        lambda: memory.cat("/a"),
        lambda: memory.open("/a").read(),
        lambda: b"".join(memory.open("/a")),
        lambda: memory.open("/a", "r").read().encode(),
        lambda: (memory.get_file("/a", str(tmp_path / "copy")), (tmp_path / "copy").read_bytes())[
            1
        ],
    ):
        with armed(tmp_path, create("truncated_read", keep=4, at=0)):
            assert read() == b"0123"
        assert memory.cat("/a") == b"0123456789"


def test_a_file_that_no_hook_reaches_is_still_of_its_kind(memory, tmp_path):
    """Its reads and writes are visits, and everything else is its own."""
    with watching(tmp_path) as controller:
        with memory.open("/a", "wb") as file:
            assert isinstance(file, io.BytesIO)
            file.writelines([b"one\n", b"two\n"])
        with memory.open("/a") as file:
            buffer = bytearray(2)
            assert (file.readinto(buffer), bytes(buffer), next(file), file.readlines()) == (
                2,
                b"on",
                b"e\n",
                [b"two\n"],
            )
            assert file.seek(0) == 0
            assert file.size == 8
    assert counts(controller) == {"open": 2, "write": 2, "read": 4}


def test_what_fsspec_says_of_a_missing_package_is_not_hidden(tmp_path):
    """Its own words, inside a trial and outside."""
    text = "Install no_such_package to go nowhere"
    fsspec.register_implementation(
        "nowhere", "no_such_package.core.FileSystem", errtxt=text, clobber=True
    )
    said = []
    for armed_or_not in (contextlib.nullcontext(), watching(tmp_path)):
        with armed_or_not, pytest.raises(ImportError) as caught:
            fsspec.open("nowhere://a").open()
        said.append(str(caught.value))
    assert said == [text] * 2


# -- clients that only look like a filesystem ------------------------------------------------------


class Client:
    """A user's own storage client."""

    def __init__(self):
        self.files = {}

    def open(self, path, mode="rb"):
        return io.BytesIO(self.files[path])

    def cat(self, path):
        return self.files[path]

    def pipe(self, path, value):
        self.files[path] = value

    def put(self, local, path):
        with open(local, "rb") as file:
            self.files[path] = file.read()

    def get(self, path, local):
        with open(local, "wb") as file:
            file.write(self.files[path])

    def mv(self, source, target):
        self.files[target] = self.files.pop(source)

    def rm(self, path):
        del self.files[path]

    def ls(self):
        return sorted(self.files)


class AsyncClient:
    """The same, awaited."""

    async def cat(self, path):
        return b"0123456789"


def test_a_client_is_watched_by_hand(tmp_path):
    """Its methods are operations; what they do inside is part of them; the rest is the client's."""
    client = watch_filesystem(Client())
    assert isinstance(client, Client)
    (tmp_path / "local").write_bytes(b"1")
    with watching(tmp_path) as controller:
        client.pipe("a", b"0123456789")
        assert client.open("a").read() == client.cat("a")
        client.put(str(tmp_path / "local"), "b")
        client.get("b", str(tmp_path / "copy"))
        client.mv("a", "c")
        client.rm("b")
    assert counts(controller) == {"open": 1, "read": 3, "write": 2, "rename": 1, "remove": 1}
    assert client.ls() == ["c"]
    with armed(tmp_path, create("truncated_read", keep=3, at=EVERY)):
        client.get("c", str(tmp_path / "copy"))
        assert (
            client.cat("c") == client.open("c").read() == (tmp_path / "copy").read_bytes() == b"012"
        )
        assert asyncio.run(watch_filesystem(AsyncClient()).cat("x")) == b"012"
    with (
        armed(tmp_path, create("flaky_storage", op="rename", path="d", when="after", at=0)),
        pytest.raises(OSError),
    ):
        client.mv("c", "d")
    assert client.ls() == ["d"]


def test_filesystems_of_fsspec_need_no_help(memory):
    """They are given back as they are."""
    assert watch_filesystem(memory) is memory


def test_a_class_of_filesystems_is_not_kept_alive(tmp_path):
    """A class that a test defines is freed with the test, but its methods are wrapped once per
    trial.
    """

    class Own(MemoryFileSystem):
        protocol = "own"
        cachable = False

        def cat_file(self, path, start=None, end=None, **keywords):
            return b"content"

    plain, wrappers = Own.cat_file, []
    for _ in range(2):
        with watching(tmp_path) as controller:
            wrappers.append(Own.cat_file)
            assert Own().cat_file("/a") == b"content"
        assert counts(controller) == {"read": 1}
    assert wrappers[0] is wrappers[1] is not plain is Own.cat_file
    gone = weakref.ref(Own)
    del Own, plain, wrappers, controller
    gc.collect()
    assert gone() is None
