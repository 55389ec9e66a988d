"""FastAPI: a model that serves one request at a time."""

import asyncio

from fastapi import FastAPI

app = FastAPI()
busy = asyncio.Lock()


class Model:
    async def generate(self, text):
        await asyncio.sleep(0.02)
        return text[::-1] + "."


model = Model()


@app.get("/generate/{text}")
async def generate(text: str):
    await busy.acquire()
    generated = await model.generate(text)
    busy.release()
    return {"text": generated}
