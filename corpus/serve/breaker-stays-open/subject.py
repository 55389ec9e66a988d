"""FastAPI, pybreaker: a scorer that spares a store which fails."""

import pybreaker
from fastapi import FastAPI

app = FastAPI()
breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=10_000)


class Store:
    def get(self, user):
        return user / 100


store = Store()


@app.get("/score/{user}")
async def score(user: int):
    try:
        return {"score": breaker.call(store.get, user)}
    except (pybreaker.CircuitBreakerError, ConnectionError):
        return {"score": 0.5}
