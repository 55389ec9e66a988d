"""Clients of a remote model that a fault of the provider reveals, each with its sound twin."""

import asyncio
import json

import httpx
from twins import twins

from pytest_mlchaos import chaos

EVENTS = [b'data: {"token": "a%d"}\n\n' % number for number in range(4)]


def provide(request):
    """Answer as a provider of a model does."""
    if request.url.path == "/stream":
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b"".join([*EVENTS, b"data: [DONE]\n\n"]),
        )
    return httpx.Response(
        200, json={"scores": [{"label": "a", "p": 0.9}, {"label": "b", "p": 0.1}]}
    )


async def ask(path):
    """Return the provider's answer."""
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(provide), base_url="http://provider"
    ) as client:
        return await client.get(path)


@twins
@chaos.rate_limited
def test_rate_limited(mlchaos, sound):
    """A client that waits for the time of the header does not work without it."""

    async def app(request):
        for attempt in range(3):
            answer = await ask("/predict")
            if answer.status_code != 429:
                return answer.json()["scores"][0]["label"]
            wait = answer.headers.get("retry-after", 2**attempt if sound else None)
            await asyncio.sleep(float(wait))
        return "busy"

    mlchaos.serve(app).drive(range(3)).assert_slo(error_rate=0)


@twins
@chaos.provider_error
def test_provider_error(mlchaos, sound):
    """Only the status that was seen so far is handled."""
    handled = range(500, 600) if sound else [500, 502, 503]

    async def app(request):
        answer = await ask("/predict")
        if answer.status_code in handled:
            return "unavailable"
        return answer.json()["scores"][0]["label"]

    mlchaos.serve(app).drive(range(3)).assert_fallback(value="unavailable")


@twins
@chaos.provider_stream
def test_provider_stream(mlchaos, sound):
    """A stream without its last event is taken for the whole."""

    async def app(request):
        tokens, whole = [], False
        for line in (await ask("/stream")).text.splitlines():
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                whole = True
            elif data:
                tokens.append(json.loads(data)["token"])
        if sound and (not whole or tokens != [f"a{number}" for number in range(4)]):
            return "interrupted"
        return "".join(tokens)

    mlchaos.serve(app).drive(range(3)).assert_fallback(value="interrupted")


@twins
@chaos.response_corruption(url="http://provider/*")
def test_response_corruption_of_a_provider(mlchaos, sound):
    """Trust what comes with status 200."""

    async def app(request):
        answer = await ask("/predict")
        if not sound:
            return answer.json()["scores"]
        try:
            scores = answer.json()["scores"]
            labels = {one["label"]: one["p"] for one in scores}
            good = labels.keys() == {"a", "b"} and abs(labels["a"] + labels["b"] - 1) < 1e-6
            return sorted(scores, key=lambda one: one["label"]) if good else "unknown"
        except (ValueError, KeyError, TypeError):
            return "unknown"

    mlchaos.serve(app).drive(range(3)).assert_fallback(value="unknown", or_golden=True)


@twins
@chaos.dependency_partial(url="http://provider/*")
def test_dependency_partial_of_a_provider(mlchaos, sound):
    """A label that is missing has the probability 0."""

    async def app(request):
        scores = {one["label"]: one["p"] for one in (await ask("/predict")).json()["scores"]}
        if sound and scores.keys() != {"a", "b"}:
            return "unknown"
        return scores.get("b", 0)

    mlchaos.serve(app).drive(range(3)).assert_fallback(value="unknown")
