"""Starlette, prometheus_client: a scorer that reports its requests in flight."""

import asyncio

from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

registry = CollectorRegistry()
in_flight = Gauge("in_flight", "requests in flight", registry=registry)


async def lookup(user):
    await asyncio.sleep(0.002)
    return user * 0.25


async def score(request):
    with in_flight.track_inprogress():
        found = await lookup(request.path_params["user"])
    return JSONResponse({"score": found})


async def metrics(request):
    return JSONResponse({"in_flight": registry.get_sample_value("in_flight")})


app = Starlette(routes=[Route("/score/{user:int}", score), Route("/in-flight", metrics)])
