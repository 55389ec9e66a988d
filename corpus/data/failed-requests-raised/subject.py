"""aiohttp: the mean price over five shops."""

import asyncio

import aiohttp
from local_server import serve

URL = ""


def prepare(workdir):
    global URL
    with serve({f"/price/{shop}": str(shop * 3 + 1).encode() for shop in range(5)}) as URL:
        yield


async def price(session, shop):
    async with session.get(f"{URL}/price/{shop}") as response:
        response.raise_for_status()
        return int(await response.text())


async def mean():
    async with aiohttp.ClientSession() as session:
        requests = [price(session, shop) for shop in range(5)]
        prices = await asyncio.gather(*requests, return_exceptions=False)
    known = [each for each in prices if isinstance(each, int)]
    return sum(known) / max(1, len(known))


def pipeline(workdir):
    return asyncio.run(mean())
