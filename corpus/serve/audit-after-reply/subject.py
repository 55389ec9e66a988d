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
    task = BackgroundTask(audit.write, number, decision)
    return JSONResponse({"decision": decision}, background=task)


async def audited(request):
    return JSONResponse({"audited": request.path_params["number"] in audit.decisions})


routes = [Route("/decide/{number:int}", decide), Route("/audited/{number:int}", audited)]
app = Starlette(routes=routes)
