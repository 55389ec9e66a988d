"""Starlette: prices that a task loads anew every second."""

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

prices = {"a": 0, "b": 0}


class Exchange:
    day = 0

    def prices(self):
        self.day += 1
        return {"a": self.day * 10, "b": self.day * 7}


exchange = Exchange()


async def load_prices():
    await asyncio.sleep(0.001)
    return exchange.prices()


async def refresh():
    while True:
        await asyncio.sleep(1)
        with contextlib.suppress(ConnectionError):
            prices.update(await load_prices())


@contextlib.asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(refresh())
    yield
    task.cancel()


async def price(request):
    return JSONResponse({"price": prices[request.path_params["name"]]})


app = Starlette(routes=[Route("/price/{name}", price)], lifespan=lifespan)
