"""BentoML: a service that greets its users."""

import asyncio

import bentoml


class Profiles:
    async def get(self, user):
        await asyncio.sleep(0.002)
        return {"language": "en" if user.endswith(("0", "2")) else "fr"}


profiles = Profiles()
WORDS = {"en": "Hello", "fr": "Bonjour"}


@bentoml.service(metrics={"enabled": False})
class Greeter:
    user = ""

    async def greeting(self, user):
        profile = await profiles.get(user)
        return f"{WORDS[profile['language']]}, {self.user}"

    @bentoml.api
    async def greet(self, user: str) -> str:
        self.user = user
        return await self.greeting(user)


app = Greeter.to_asgi()
