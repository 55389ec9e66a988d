"""FastAPI, httpx: answers of a provider with a limit."""

import asyncio

import httpx
from fastapi import FastAPI

app = FastAPI()


def provider(request):
    return httpx.Response(200, json={"answer": request.url.path.rpartition("/")[2] * 2})


client = httpx.AsyncClient(transport=httpx.MockTransport(provider), base_url="http://provider")


async def asked(question):
    reply = await client.get(f"/ask/{question}")
    return reply


@app.get("/answer/{question}")
async def answer(question: int):
    reply = await asked(question)
    reply.raise_for_status()
    return reply.json()
