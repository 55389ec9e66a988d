"""Apps that the death of a background task reveals, each with its sound twin."""

import asyncio
import queue
import threading

from twins import twins

from pytest_mlchaos import chaos


class Batcher:
    """A queue, and a task that handles what is in it."""

    def __init__(self, sound):
        self.sound = sound

    def start(self):
        self.queue = asyncio.Queue()
        self.task = asyncio.create_task(self.run() if not self.sound else self.supervise())

    async def supervise(self):
        while True:
            self.batch = []
            try:
                await self.run()
            except Exception as error:  # noqa: BLE001
                for _, answer in self.batch:
                    if not answer.done():
                        answer.set_exception(error)

    async def run(self):
        while True:
            self.batch = [await self.queue.get()]
            await asyncio.sleep(0.01)
            while not self.queue.empty():
                self.batch.append(self.queue.get_nowait())
            for value, answer in self.batch:
                answer.set_result(value * 2)

    async def submit(self, value):
        answer = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((value, answer))
        return await answer


def served(batcher):
    """Return an ASGI app around a batcher."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            batcher.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            batcher.task.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            status, body = 200, str(await batcher.submit(3)).encode()
        except RuntimeError:
            status, body = 503, b"unavailable"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


@twins
@chaos.batcher_failure
def test_batcher_failure(mlchaos, sound):
    """An exception in the batcher stops all later requests."""
    load = mlchaos.serve(served(Batcher(sound))).drive(["/"] * 8, concurrency=4)
    load.assert_isolated(by="batch")


@twins
@chaos.batcher_failure
def test_batcher_failure_of_a_lazy_task(mlchaos, sound):
    """The first request starts the task."""
    batcher = Batcher(sound)

    async def app(value):
        if not hasattr(batcher, "task"):
            batcher.start()
        return await batcher.submit(value)

    mlchaos.serve(app).drive(range(5)).assert_isolated(by="batch")


def predict(values):
    """Return the answers."""
    return [value * 2 for value in values]


class Worker:
    """A thread that predicts what is in a queue. The first request starts it."""

    def __init__(self, sound):
        self.sound, self.queue = sound, None

    def run(self, waiting):
        while True:
            value, answer = waiting.get()
            try:
                answer.put(predict([value])[0])
            except RuntimeError as error:
                answer.put(error)
                if not self.sound:
                    return

    def __call__(self, value):
        if self.queue is None:
            self.queue = queue.Queue()
            threading.Thread(target=self.run, args=(self.queue,), daemon=True).start()
        answer = queue.Queue()
        self.queue.put((value, answer))
        found = answer.get(timeout=1)
        if isinstance(found, RuntimeError):
            raise found
        return found


@twins
@chaos.batcher_failure(target="pairs_batchers:predict")
def test_batcher_failure_in_a_thread(mlchaos, sound):
    """The worker ends after an error."""
    mlchaos.serve(Worker(sound)).drive(range(3)).assert_isolated()
