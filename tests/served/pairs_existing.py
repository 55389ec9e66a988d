"""Apps that faults reveal which are not of services, each with its sound twin."""

import asyncio
import json
import math
import time

import httpx
import pytest
from twins import twins

from pytest_mlchaos import chaos


@twins
@chaos.gpu_oom(phase="forward")
def test_gpu_oom(mlchaos, sound):
    """Catch a different error than a full device gives."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 1)
    caught = torch.OutOfMemoryError if sound else MemoryError

    def app(row):
        try:
            return math.isfinite(model(torch.tensor(row)).item())
        except caught:
            return "busy"

    mlchaos.serve(app).drive([[1.0, 2.0]] * 3).assert_fallback(value="busy")


def read_features(user):
    """Return the features of a user."""
    return {"age": [float(user), 3.0], "income": [1.0, 2.0]}


@twins
@chaos.missing_values(target="pairs_existing:read_features")
def test_missing_values(mlchaos, sound):
    """Count a missing feature as zero."""

    def app(user):
        found = [value for column in read_features(user).values() for value in column]
        if sound and not all(isinstance(one, float) and math.isfinite(one) for one in found):
            return "unknown"
        return sum(value or 0 for value in found)

    mlchaos.serve(app).drive(range(1, 4)).assert_fallback(value="unknown")


def make_batch(user):
    """Return the rows of a request."""
    np = pytest.importorskip("numpy")
    return np.array([[float(user), 1.0], [2.0, 3.0]])


@twins
@chaos.corrupt_batch(target="pairs_existing:make_batch")
def test_corrupt_batch(mlchaos, sound):
    """Pass NaN on."""

    def app(user):
        total = float(make_batch(user).sum())
        return total if math.isfinite(total) or not sound else "unknown"

    mlchaos.serve(app).drive(range(1, 4)).assert_fallback(value="unknown")


@twins
@chaos.flaky_storage(op="read")
def test_flaky_storage(mlchaos, sound, tmp_path):
    """Expect the file of the model to be readable at each request."""
    (tmp_path / "weights.json").write_text("[1.0]")
    caught = OSError if sound else ValueError

    def app(user):
        try:
            return json.loads((tmp_path / "weights.json").read_text())[0]
        except caught:
            return "unknown"

    mlchaos.serve(app).drive(range(3)).assert_fallback(value="unknown")


@twins
@chaos.disk_full
def test_disk_full(mlchaos, sound, tmp_path):
    """Let the log decide if a request is answered."""
    caught = OSError if sound else ValueError

    def app(user):
        try:
            with open(tmp_path / "log.txt", "a") as log:
                log.write("x" * 100)
        except caught:
            return "not logged"
        return "logged"

    mlchaos.serve(app).drive(range(3)).assert_slo(error_rate=0)


@twins
@chaos.refused
def test_refused(mlchaos, sound):
    """Catch the errors of sockets, not those of the client."""
    caught = httpx.TransportError if sound else OSError
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=1))

    async def app(user):
        try:
            async with httpx.AsyncClient(transport=transport) as client:
                return (await client.get("http://provider/")).json()
        except caught:
            return "unknown"

    mlchaos.serve(app).drive(range(3)).assert_fallback(value="unknown")


@twins
@chaos.clock_jump
def test_clock_jump(mlchaos, sound):
    """Measure a duration with a clock that can jump."""

    async def app(user):
        clock = time.monotonic if sound else time.time
        begun = clock()
        await asyncio.sleep(0.01)
        return clock() - begun < 5

    load = mlchaos.serve(app).drive(range(4), rate=200)
    assert all(reply.value for reply in load.replies)
