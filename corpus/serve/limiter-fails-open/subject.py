"""FastAPI, slowapi: a limit of the requests of each client."""

from fastapi import FastAPI, Request
from limits.storage import MemoryStorage
from slowapi import Limiter

app = FastAPI()


class Counts(MemoryStorage):
    """Stands for a store in the network."""

    STORAGE_SCHEME = ["counts"]

    def incr(self, key, expiry, amount=1):
        return super().incr(key, expiry, amount)


def client_of(request):
    return "client"


limiter = Limiter(key_func=client_of, storage_uri="counts://", in_memory_fallback_enabled=True)
app.state.limiter = limiter


@app.get("/answer/{number}")
@limiter.limit("100/minute")
async def answer(request: Request, number: int):
    return {"answer": number * 6}
