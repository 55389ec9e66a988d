"""FastAPI, pybreaker: a classifier with a breaker around its model."""

import pybreaker
from fastapi import FastAPI, HTTPException

app = FastAPI()
breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60)


def tokenize(text):
    return [ord(letter) for letter in text]


def classify(text):
    return sum(tokenize(text)) % 3


@app.get("/label/{text}")
async def label(text: str):
    try:
        return {"label": breaker.call(classify, text)}
    except pybreaker.CircuitBreakerError:
        raise HTTPException(503, "the model is down") from None
    except ValueError:
        raise HTTPException(422, "this text has no tokens") from None
