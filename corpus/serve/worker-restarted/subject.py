"""Starlette: a queue between the endpoint and the model."""

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def model(text):
    await asyncio.sleep(0.004)
    return len(text)


async def work(queue):
    while True:
        text, future = await queue.get()
        future.set_result(await model(text))


async def supervised(queue):
    while True:
        future = None
        try:
            text, future = await queue.get()
            future.set_result(await model(text))
        except Exception as error:
            if future is not None:
                future.set_exception(error)


async def count(request):
    future = asyncio.get_running_loop().create_future()
    await app.state.queue.put((request.path_params["text"], future))
    return JSONResponse({"count": await future})


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.queue = asyncio.Queue()
    worker = asyncio.create_task(supervised(app.state.queue))
    yield
    worker.cancel()


app = Starlette(routes=[Route("/count/{text}", count)], lifespan=lifespan)
