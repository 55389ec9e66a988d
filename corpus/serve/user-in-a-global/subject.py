"""FastAPI: recommendations by the history of the user."""

import asyncio
import contextvars

from fastapi import FastAPI

app = FastAPI()


class User:
    current = None

    def set(self, user):
        self.current = user

    def get(self):
        return self.current


user_now = User()


class History:
    async def of(self, user):
        await asyncio.sleep(0.001 * (1 + user % 3))
        return [user * 3, user * 5]


history = History()


async def recommend():
    items = await history.of(user_now.get())
    return {"user": user_now.get(), "next": items}


@app.get("/next/{user}")
async def recommendation(user: int):
    user_now.set(user)
    return await recommend()
