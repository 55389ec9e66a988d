"""Starlette: the nearest vectors, over three shards."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


class Shard:
    def __init__(self, start):
        self.values = range(start, start + 30, 7)

    async def search(self, wanted):
        await asyncio.sleep(0.002)
        return min(self.values, key=lambda value: abs(value - wanted))


shards = [Shard(start) for start in range(3)]


async def search(request):
    wanted = request.path_params["wanted"]
    searches = (shard.search(wanted) for shard in shards)
    found = await asyncio.gather(*searches, return_exceptions=True)
    nearest = sorted(one for one in found if not isinstance(one, Exception))
    return JSONResponse({"nearest": nearest, "complete": True})


app = Starlette(routes=[Route("/search/{wanted:int}", search)])
