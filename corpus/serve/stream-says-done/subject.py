"""Starlette, sse-starlette: a chat that streams its tokens as events."""

import asyncio

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.routing import Route


class Model:
    async def step(self, token):
        await asyncio.sleep(0.005)
        return (token * 7 + 3) % 31


model = Model()


async def events(token):
    try:
        for _ in range(5):
            token = await model.step(token)
            yield {"data": str(token)}
    except ConnectionError:
        yield {"event": "error", "data": "the model does not answer"}


async def chat(request):
    return EventSourceResponse(events(request.path_params["token"]))


app = Starlette(routes=[Route("/chat/{token:int}", chat)])
