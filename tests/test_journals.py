"""The same schedule gives the same journal, byte for byte, in each world. (needs torch)"""

from __future__ import annotations

import pytest

pytest.importorskip("httpx")
pytest.importorskip("fsspec")

SUBJECTS = """
import asyncio
import torch
import torch.distributed as dist


def train(folder, batches=()):
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for batch in batches or [torch.ones(3)] * 6:
        optimizer.zero_grad()
        ((weight - batch) ** 2).sum().backward()
        optimizer.step()
        for attempt in range(9):
            try:
                torch.save(weight.detach(), folder / "weight.pt")
                break
            except OSError:
                pass
    return weight.detach()


def upload(fs):
    for number in range(8):
        for attempt in range(9):
            try:
                fs.pipe(f"bucket/{number}", b"content")
                break
            except OSError:
                pass
    return sorted(fs.ls("bucket", detail=False))


def ranks(folder):
    dist.init_process_group("gloo")
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for step in range(4):
        weight.grad = torch.ones(3)
        dist.all_reduce(weight.grad)
        optimizer.step()
    return weight.detach()


async def look_up(user):
    await asyncio.sleep(0.01)
    return user


async def app(scope, receive, send):
    if scope["type"] == "http":
        try:
            async with asyncio.timeout(1):
                body = str(await look_up(int(scope["path"][1:]))).encode()
        except (TimeoutError, ConnectionError):
            body = b"none"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""
TESTS = """
import fsspec, torch
from subjects import app, ranks, train, upload

@chaos.corrupt_batch(kind="noise", p=0.5)
@chaos.crash
@chaos.settings(max_trials=12)
def test_training(mlchaos, tmp_path):
    mlchaos.run(train, tmp_path, mlchaos.batches([torch.ones(3)] * 6), max_restarts=20)

@chaos.flaky_storage(op="write", p=0.6)
@chaos.slow_storage(delay="10s")
@chaos.settings(max_trials=12)
def test_local_storage(mlchaos, tmp_path):
    assert mlchaos.run(train, tmp_path).value is not None

@chaos.flaky_storage(path="bucket/*", when=chaos.one_of("before", "after"))
@chaos.settings(max_trials=12)
def test_remote_storage(mlchaos):
    assert mlchaos.run(upload, fsspec.filesystem("memory", skip_instance_cache=True)).value

@chaos.rank_failure(mode=chaos.one_of("kill", "raise"))
@chaos.settings(max_trials=6)
def test_ranks(mlchaos, tmp_path):
    mlchaos.world(ranks=2, restarts=9).run(ranks, tmp_path).assert_finished()

@chaos.latency_spike(target="subjects:look_up", delay="10s")
@chaos.dependency_failure(target="subjects:look_up", p=0.2)
@chaos.settings(max_trials=12)
def test_serving(mlchaos):
    load = mlchaos.serve(app).drive([f"/{user}" for user in range(20)], concurrency=4)
    load.assert_slo(max="1.1s", error_rate=0)
"""


@pytest.mark.slow
def test_the_same_schedule_gives_the_same_journal_in_all_worlds(example):
    """Searched with a seed: alone, in two workers, and in another order."""
    pytest.importorskip("xdist")
    project = example.with_file("subjects.py", SUBJECTS).with_tests(TESTS)
    journals = []
    alone = ["-p", "no:xdist"]
    for mode in (
        alone,
        ["-n", "2"],
        [*alone, "test_it.py::test_serving", "test_it.py::test_ranks", "."],
    ):
        project.run(
            "--mlchaos-seed=7", "--mlchaos-journal=journal.jsonl", *mode, interpreter=True, passed=5
        )
        journals.append((project.pytester.path / "journal.jsonl").read_text().splitlines())
    worlds = {line.partition("::")[2].partition('"')[0] for line in journals[0]}
    assert worlds == {
        "test_training",
        "test_local_storage",
        "test_remote_storage",
        "test_ranks",
        "test_serving",
    }
    assert all(journal == journals[0] for journal in journals)
