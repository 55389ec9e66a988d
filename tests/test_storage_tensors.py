"""Storage: torch.save and torch.load, safetensors. (needs torch)"""

from __future__ import annotations

import io
import json
import sys
import types

import numpy as np
import pytest
import torch

from pytest_mlchaos.core.faults import create
from tests.storage import armed, made, watching

STATE = {"weight": torch.arange(1000.0)}


@pytest.fixture
def other_module(monkeypatch):
    """A module that has imported the functions under names of its own."""
    module = types.ModuleType("saver")
    module.write, module.read = torch.save, torch.load
    monkeypatch.setitem(sys.modules, "saver", module)
    return module


def test_torch_files_are_one_open_and_one_write_or_read(tmp_path, other_module):
    """Under whatever name; C++ does the work."""
    path = tmp_path / "a.pt"
    assert made(tmp_path, lambda: torch.save(STATE, path)) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: torch.load(path)) == {"open": 1, "read": 1}
    assert made(tmp_path, lambda: torch.load(str(path), mmap=True)) == {"open": 1, "read": 1}
    assert made(tmp_path, lambda: other_module.write(STATE, f=str(path))) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: other_module.read(f=path)) == {"open": 1, "read": 1}
    assert other_module.write is torch.save


def test_a_file_object_makes_its_own_visits(tmp_path):
    """It is a Python file object. Memory does not count as storage."""

    def save():
        with open(tmp_path / "a.pt", "wb") as file:
            torch.save(STATE, file)

    counted = made(tmp_path, save)
    assert counted["open"] == 1
    assert counted["write"] >= 1
    assert made(tmp_path, lambda: torch.save(STATE, io.BytesIO())) == {}
    with open(tmp_path / "b.pt", "wb") as before:
        assert made(tmp_path, lambda: torch.save(STATE, before)) == {"write": 1}


def test_before_and_after(tmp_path):
    """The old file, an empty one (the open truncates it before a write can fail), or the whole new
    one.
    """
    for op, when, size in (
        ("open", "before", 3),
        ("open", "after", 0),
        ("write", "before", 0),
        ("write", "after", None),
    ):
        path = tmp_path / f"{op}-{when}.pt"
        path.write_bytes(b"old")
        with (
            armed(tmp_path, create("flaky_storage", error="ENOSPC", op=op, when=when, at=0)),
            pytest.raises(OSError, match="No space left"),
        ):
            torch.save(STATE, path)
        assert size is None or path.stat().st_size == size
    assert torch.equal(torch.load(tmp_path / "write-after.pt")["weight"], STATE["weight"])


@pytest.mark.parametrize("mmap", [False, True])
def test_a_truncated_checkpoint_does_not_load(tmp_path, mmap):
    """From a path, whichever way it is read, and from a file object; the file is whole."""
    path = str(tmp_path / "a.pt")
    torch.save(STATE, path)
    with armed(tmp_path, create("truncated_read", path="*.pt", at=0)):
        with pytest.raises(RuntimeError, match="central directory"):
            torch.load(path, mmap=mmap)
        assert torch.equal(torch.load(path, mmap=mmap)["weight"], STATE["weight"])
    with (
        open(path, "rb") as file,
        pytest.raises(RuntimeError, match="central directory"),
        armed(tmp_path, create("truncated_read", at=0)),
    ):
        torch.load(file)
    with (
        armed(tmp_path, create("truncated_read", at=0)),
        open(path, "rb") as file,
        pytest.raises(RuntimeError),
    ):
        torch.load(file)


def test_safetensors(tmp_path):
    """Both flavours, in one open and one write or read; cut short they do not load."""
    pytest.importorskip("safetensors")
    import safetensors.numpy
    import safetensors.torch

    path = tmp_path / "a.safetensors"
    assert made(tmp_path, lambda: safetensors.torch.save_file(STATE, path)) == {
        "open": 1,
        "write": 1,
    }
    assert made(tmp_path, lambda: safetensors.torch.load_file(path)) == {"open": 1, "read": 1}
    assert made(
        tmp_path, lambda: safetensors.numpy.save_file({"a": np.ones(3)}, filename=path)
    ) == {"open": 1, "write": 1}
    assert made(tmp_path, lambda: safetensors.numpy.load_file(filename=path)) == {
        "open": 1,
        "read": 1,
    }
    with (
        armed(tmp_path, create("truncated_read", at=0)),
        pytest.raises(safetensors.SafetensorError),
    ):
        safetensors.torch.load_file(path)
    assert safetensors.numpy.load_file(path)["a"].sum() == 3


def test_everything_is_as_before_after_a_trial(other_module, tmp_path):
    """Also in modules that copied a name."""
    before = torch.save, torch.load, torch.serialization.save
    with watching(tmp_path):
        assert torch.save is not before[0]
        late = types.ModuleType("late")
        late.save = torch.save
        sys.modules["late"] = late
    assert (torch.save, torch.load, torch.serialization.save) == before
    assert sys.modules.pop("late").save is before[0]
    assert other_module.write is before[0]


def test_a_module_that_is_imported_in_the_trial_is_watched(example):
    """The first trial would else see other operations than the second."""
    example.with_tests(
        """
        @chaos.crash(site="storage.write", at=99)
        def test_it(mlchaos, tmp_path):
            import torch
            torch.save({}, tmp_path / "a.pt")
            import safetensors.numpy, numpy
            safetensors.numpy.save_file({"a": numpy.ones(1)}, tmp_path / "b")
            import fsspec
            fsspec.filesystem("memory").pipe("/x", b"1")
            raise SystemExit(str(mlchaos._controller.passed()))
        """
    ).run(fresh=True, failed=1).has(json.dumps({"storage.write": 3}).replace('"', "'"))
