"""Apps that more load reveals, each with its sound twin."""

import asyncio

from twins import twins

from pytest_mlchaos import chaos


def serving_one_at_a_time(sound):
    """Return a handler with one worker, which takes 20 ms for a request."""
    worker, waiting = asyncio.Semaphore(1), []

    async def app(value):
        if sound and len(waiting) >= 3:
            return "busy"
        waiting.append(value)
        try:
            async with worker:
                await asyncio.sleep(0.02)
                return value
        finally:
            waiting.pop()

    return app


@twins
@chaos.overload(factor=3, duration="2s")
def test_overload(mlchaos, sound):
    """A queue without a bound makes all wait."""
    load = mlchaos.serve(serving_one_at_a_time(sound)).drive(range(24), rate=30)
    load.assert_slo(max="150ms", error_rate=0)


@twins
@chaos.retry_storm
def test_retry_storm(mlchaos, sound):
    """A place that a client leaves in a hurry is never free again."""
    free = [4]

    async def app(value):
        if not free[0]:
            return "busy"
        free[0] -= 1
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            free[0] += 1 if sound else 0
            raise
        free[0] += 1
        return "done"

    load = mlchaos.serve(app).drive(range(6))
    assert load.replies[-1].value == "done"
