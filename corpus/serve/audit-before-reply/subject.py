"""Starlette: decisions that must be in the audit."""

import asyncio

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Route


class Audit:
    def __init__(self):
        self.decisions = {}

    async def write(self, number, decision):
        await asyncio.sleep(0.002)
        self.decisions[number] = decision


audit = Audit()


async def decide(request):
    number = request.path_params["number"]
    decision = "yes" if number > 5 else "no"
    try:
        await audit.write(number, decision)
    except ConnectionError:
        return JSONResponse({"detail": "no decision without its audit"}, 503)
    return JSONResponse({"decision": decision})


async def audited(request):
    if request.path_params["number"] not in audit.decisions:
        return JSONResponse({"detail": "was not decided"}, 404)
    return JSONResponse({"audited": True})


routes = [Route("/decide/{number:int}", decide), Route("/audited/{number:int}", audited)]
app = Starlette(routes=routes)
