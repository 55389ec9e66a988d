"""FastAPI, openai: a text that a provider streams."""

import json

import httpx
import openai
from fastapi import FastAPI, HTTPException

app = FastAPI()


def chunk(text, finish=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    kind = {"object": "chat.completion.chunk", "id": "1", "created": 1, "model": "tiny"}
    return f"data: {json.dumps({**kind, 'choices': [choice]})}\n\n"


def provider(request):
    texts = [chunk("It "), chunk("may "), chunk("rain"), chunk("", "stop"), "data: [DONE]\n\n"]
    content = "".join(texts).encode()
    return httpx.Response(200, content=content, headers={"content-type": "text/event-stream"})


client = openai.AsyncOpenAI(
    api_key="none",
    base_url="http://provider/v1",
    max_retries=0,
    http_client=httpx.AsyncClient(transport=httpx.MockTransport(provider)),
)


@app.get("/summary/{day}")
async def summary(day: int):
    question = [{"role": "user", "content": f"day {day}"}]
    chunks = await client.chat.completions.create(model="tiny", messages=question, stream=True)
    text, finish = "", None
    async for one in chunks:
        text += one.choices[0].delta.content or ""
        finish = one.choices[0].finish_reason
    return {"text": text}
