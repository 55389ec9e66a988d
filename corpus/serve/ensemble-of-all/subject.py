"""Ray Serve: the mean of two models, each a deployment of its own."""

import asyncio

from ray import serve


def linear(value):
    return 2.0 * value


def square(value):
    return value * value


@serve.deployment
class Linear:
    def __call__(self, value):
        return linear(value)


@serve.deployment
class Square:
    def __call__(self, value):
        return square(value)


@serve.deployment
class Ensemble:
    def __init__(self, *models):
        self.models = models

    async def __call__(self, value):
        asked = (model.remote(value) for model in self.models)
        answers = await asyncio.gather(*asked)
        return sum(answers) / len(answers)


ensemble = serve.run(Ensemble.bind(Linear.bind(), Square.bind()), _local_testing_mode=True)


def handle(value):
    return ensemble.remote(value).result()
