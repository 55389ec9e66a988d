"""FastAPI: a report that takes a while."""

import asyncio

from fastapi import FastAPI, HTTPException, Request

app = FastAPI()


async def step(number):
    await asyncio.sleep(0.1)
    return number * 2


async def is_gone(request):
    return await request.is_disconnected()


@app.get("/report/{number}")
async def report(number: int, request: Request):
    steps = []
    for place in range(12):
        steps.append(await step(number + place))
        if await is_gone(request):
            raise HTTPException(499)
    return {"report": steps}
