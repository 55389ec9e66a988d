"""FastAPI, numpy: a dynamic batcher."""

import asyncio
import contextlib

import numpy
from fastapi import FastAPI

WAIT, LARGEST = 0.005, 4


def predict(batch):
    return batch * 2.0


async def batches(queue):
    while True:
        waiting = [await queue.get()]
        await asyncio.sleep(WAIT)
        while len(waiting) < LARGEST and not queue.empty():
            waiting.append(queue.get_nowait())
        predicted = predict(numpy.array([value for value, _ in waiting]))
        for (_, future), value in zip(waiting, predicted, strict=True):
            future.set_result(float(value))


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.queue = asyncio.Queue()
    worker = asyncio.create_task(batches(app.state.queue))
    yield
    worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/double/{value}")
async def double(value: float):
    future = asyncio.get_running_loop().create_future()
    await app.state.queue.put((value, future))
    return {"double": await future}
