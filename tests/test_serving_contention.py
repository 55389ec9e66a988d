"""Resources that run short inside a service: the CPU, memory, the disk under a cache."""

from __future__ import annotations

import pytest

CPU = """
import asyncio

async def model(x):
    return x

async def waiting(x):
    return await model(x)

async def shedding(x):
    try:
        async with asyncio.timeout(0.1):
            return await model(x)
    except TimeoutError:
        return "busy"

@chaos.cpu_starved(site="serve.request", share=0.2, heal_after="2s", at=20)
def test_it(mlchaos):
    mlchaos.capacity("test_it:model", workers=1, service_time="20ms")
    load = mlchaos.serve(APP).drive(range(300), rate=30)
    load.assert_recovered(within="1s", p99="150ms")
    assert load.replies[20].fault_ended > load.replies[20].start + 1.9
"""
MEMORY = """
free = 2

def features(x):
    return list(range(x))

async def leaking(x):
    global free
    if not free:
        raise RuntimeError("no slot")
    free -= 1
    found = features(x)
    free += 1
    return found

async def tidy(x):
    global free
    if not free:
        raise RuntimeError("no slot")
    free -= 1
    try:
        return features(x)
    finally:
        free += 1

@chaos.host_oom(target="test_it:features", at=[3, 5])
def test_it(mlchaos):
    mlchaos.serve(APP).drive(range(10)).assert_isolated()
"""
DISK = """
import asyncio
import pytest

cache = None

@pytest.fixture(autouse=True)
def folder(tmp_path):
    global cache
    cache = tmp_path
    for key in range(3):
        (tmp_path / str(key)).write_bytes(bytes(2000))

def read(key):
    return len((cache / str(key)).read_bytes())

async def blocking(key):
    await asyncio.sleep(0.01)
    return read(key % 3)

async def limited(key):
    try:
        async with asyncio.timeout(0.1):
            return await asyncio.to_thread(read, key % 3)
    except TimeoutError:
        await asyncio.sleep(0.01)  # compute it
        return 2000

@chaos.slow_disk(bandwidth="1KB/s", at=2)
def test_it(mlchaos):
    load = mlchaos.serve(APP).drive(range(12), rate=5)
    load.assert_slo(max="150ms", error_rate=0)
    load.assert_isolated()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "unsound", "sound", "error"),
    [
        (CPU, "waiting", "shedding", "NotRecovered"),
        (MEMORY, "leaking", "tidy", "NotIsolated"),
        (DISK, "blocking", "limited", "SloMissed"),
    ],
)
def test_a_service_with_few_resources_is_judged(example, test, unsound, sound, error):
    """The unsound one is found, and its sound twin passes."""
    outcome = example.with_tests(test.replace("APP", unsound)).run(failed=1)
    outcome.has(error)
    example.with_tests(test.replace("APP", sound)).run(passed=1)
