"""FastAPI, stamina: a text generator that charges for each text."""

import asyncio
import uuid

import stamina
from fastapi import FastAPI

app = FastAPI()


class Billing:
    charges = {}

    async def charge(self, user, tokens, key):
        await asyncio.sleep(0.003)
        self.charges[key] = (user, tokens)

    def spent(self, user):
        return sum(tokens for who, tokens in self.charges.values() if who == user)


billing = Billing()


@stamina.retry(on=ConnectionError, attempts=3)
async def charge(user, tokens, key):
    await billing.charge(user, tokens, key)


@app.post("/generate/{user}")
async def generate(user: str):
    text = f"a text for {user}"
    await charge(user, len(text), uuid.uuid4())
    return {"text": text}


@app.get("/spent/{user}")
async def spent(user: str):
    return {"tokens": billing.spent(user)}
