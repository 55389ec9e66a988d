"""Starlette: answers of a provider, with a token that a task refreshes."""

import asyncio
import contextlib
import time

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


class Token:
    expires = 0.0


async def fetch_token():
    await asyncio.sleep(0.001)
    return time.monotonic() + 2.5


async def refresh():
    while True:
        with contextlib.suppress(ConnectionError):
            Token.expires = await fetch_token()
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(refresh())
    await asyncio.sleep(0.01)
    yield
    task.cancel()


async def answer(request):
    if Token.expires < time.monotonic():
        return JSONResponse({"detail": "the provider refuses the token"}, 502)
    return JSONResponse({"answer": request.path_params["question"] * 3})


app = Starlette(routes=[Route("/answer/{question}", answer)], lifespan=lifespan)
