"""Starlette, tenacity: a ranker whose features come from a slow table."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tenacity import retry, stop_after_attempt, stop_after_delay, wait_exponential

TABLE = {1: [3, 1, 2], 2: [9, 7, 8]}


async def lookup(user):
    await asyncio.sleep(0.004)
    return TABLE[user]


@retry(
    stop=stop_after_attempt(6) | stop_after_delay(1),
    wait=wait_exponential(multiplier=0.1, max=0.3),
    reraise=True,
)
async def patiently(user):
    return await lookup(user)


async def rank(request):
    try:
        features = await patiently(request.path_params["user"])
    except TimeoutError:
        return JSONResponse({"detail": "no features"}, 503)
    return JSONResponse(sorted(features))


app = Starlette(routes=[Route("/rank/{user:int}", rank)])
