"""The bugs that people who serve models report, as minimal apps with their sound twins."""

import asyncio
import json

import pytest

from pytest_mlchaos import chaos

twins = pytest.mark.parametrize("sound", [True, False], ids=["sound", "unsound"])


async def read(receive):
    """Return the body of a request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def answer(send, status, body):
    """Send a whole response."""
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def stream(send, tokens):
    """Send a response token by token."""
    kind = (b"content-type", b"text/event-stream")
    await send({"type": "http.response.start", "status": 200, "headers": [kind]})
    async for token in tokens:
        data = b"data: %d\n\n" % token
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


# -- 1: a client that hangs up leaks a slot --------------------------------------------------------


class Slots:
    """Two requests at a time."""

    def __init__(self, sound):
        self.sound = sound
        self.free = asyncio.Semaphore(2)

    async def tokens(self):
        for number in range(5):
            await asyncio.sleep(0.02)
            yield number

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        await self.free.acquire()
        if self.sound:
            try:
                await stream(send, self.tokens())
            finally:
                self.free.release()
        else:
            await stream(send, self.tokens())
            self.free.release()


@twins
@chaos.client_disconnect
def test_a_client_that_hangs_up_leaks_a_slot(mlchaos, sound):
    """The slot is released only after the last token."""
    mlchaos.serve(Slots(sound)).drive(["/"] * 3).assert_no_leak()


# -- 2: a client that hangs up leaks a KV cache, and the engine goes on generating -----------------


class Engine:
    """Continuous batching: each step makes one token for each sequence in the cache."""

    def __init__(self, sound):
        self.sound = sound
        self.cache, self.task = {}, None

    async def step(self):
        await asyncio.sleep(0.01)
        for tokens in list(self.cache.values()):
            tokens.put_nowait(1)

    async def run(self):
        while self.cache:
            await self.step()
        self.task = None

    async def generate(self, key, number):
        self.cache[key] = asyncio.Queue()
        if self.task is None:
            self.task = asyncio.create_task(self.run())
        for _ in range(number):
            yield await self.cache[key].get()
        del self.cache[key]

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        key = object()
        serving = asyncio.ensure_future(stream(send, self.generate(key, 6)))
        gone = asyncio.ensure_future(self.wait_for_disconnect(receive))
        try:
            await asyncio.wait([serving, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            gone.cancel()
            if self.sound:
                self.cache.pop(key, None)

    async def wait_for_disconnect(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass


@twins
@chaos.client_disconnect
def test_a_client_that_hangs_up_leaks_its_cache(mlchaos, sound):
    """The sequence stays in the cache."""
    mlchaos.serve(Engine(sound)).drive(["/"] * 3).assert_no_leak()


@twins
@chaos.client_disconnect
def test_an_engine_generates_for_a_client_that_has_left(mlchaos, sound):
    """The engine makes tokens for the sequence for ever."""
    mlchaos.serve(Engine(sound)).drive(["/"] * 3).assert_work_stops(of="six_bugs:Engine.step")


# -- 3, 4 and 5: one bad request fails or hangs its batch, or ends the batcher ---------------------


def predict(rows):
    """Return a score for each row. A bad one raises."""
    return [2 * row["x"] + 1 for row in rows]


class Batcher:
    """A batching worker, with one bug or none."""

    def __init__(self, bug):
        self.bug = bug
        self.queue = None

    async def run(self):
        while True:
            batch = [await self.queue.get()]
            await asyncio.sleep(0.005)
            while not self.queue.empty():
                batch.append(self.queue.get_nowait())
            try:
                scores = predict([row for row, _ in batch])
            except Exception as error:  # noqa: BLE001
                self.failed(batch, error)
                continue
            for (_, done), score in zip(batch, scores, strict=True):
                done.set_result(score)

    def failed(self, batch, error):
        if self.bug == "ends":
            raise error
        if self.bug == "fails":
            for _, done in batch:
                done.set_exception(error)
        elif self.bug == "hangs":
            batch[0][1].set_exception(error)
        else:
            for row, done in batch:
                try:
                    done.set_result(predict([row])[0])
                except Exception as one:  # noqa: BLE001
                    done.set_exception(one)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        row = json.loads(await read(receive))
        if self.queue is None:
            self.queue = asyncio.Queue()
            self.task = asyncio.create_task(self.run())
        done = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((row, done))
        try:
            score = await done
        except Exception:  # noqa: BLE001
            await answer(send, 422, b"bad row")
        else:
            await answer(send, 200, b"%d" % score)


REQUESTS = [("POST", "/score", {"x": number}) for number in range(8)]


@pytest.mark.parametrize("bug", ["fails", "hangs", "ends", None])
@chaos.poisoned_batch
def test_one_bad_request_harms_its_batch(mlchaos, bug):
    """The others fail, or are never answered."""
    mlchaos.serve(Batcher(bug)).drive(REQUESTS, concurrency=4).assert_isolated()


@pytest.mark.parametrize("bug", ["ends", None])
@chaos.malformed_request
def test_one_bad_request_ends_the_batcher(mlchaos, bug):
    """All later requests wait for ever."""
    mlchaos.serve(Batcher(bug)).drive(REQUESTS).assert_isolated()
