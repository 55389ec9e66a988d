"""Apps that a malformed request reveals, each with its sound twin."""

import asyncio
import math

from twins import twins

from pytest_mlchaos import chaos

ROWS = [{"features": [1.0, number / 8]} for number in range(8)]


class RunningMean:
    """Subtract the mean of all features so far, for example to normalise."""

    def __init__(self, sound):
        self.sound, self.total, self.count = sound, 0.0, 0

    def __call__(self, row):
        if self.sound:
            fits = isinstance(row, dict) and isinstance(row.get("features"), list)
            features = row["features"] if fits else []
            if len(features) != 2 or not all(
                isinstance(one, float) and math.isfinite(one) and abs(one) < 1e6 for one in features
            ):
                raise ValueError("status 422")
        before = self.total / max(1, self.count)
        self.total, self.count = self.total + sum(row["features"]), self.count + 1
        return round(sum(row["features"]) - before, 6)


@twins
@chaos.malformed_request
def test_malformed_request(mlchaos, sound):
    """Change the next answers by what one request leaves in a shared state.

    The mean depends on the accepted requests, so only NaN and infinity are judged.
    """
    load = mlchaos.serve(RunningMean(sound)).drive(ROWS)
    load.assert_isolated(by=lambda reply: reply.ok and math.isfinite(reply.value))


def predict_batch(rows):
    """Return the sum of each row."""
    return [sum(row["features"]) for row in rows]


class Batcher:
    """Put the requests of 10 ms together."""

    def __init__(self, sound):
        self.sound, self.waiting = sound, []

    async def __call__(self, row):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self.waiting.append((row, answer))
        if len(self.waiting) == 1:
            loop.call_later(0.01, self.flush)
        return await answer

    def flush(self):
        waiting, self.waiting = self.waiting, []
        groups = [[one] for one in waiting] if self.sound else [waiting]
        for group in groups:
            try:
                results = predict_batch([row for row, _ in group])
            except Exception as error:  # noqa: BLE001
                for _, answer in group:
                    answer.set_exception(error)
            else:
                for (_, answer), result in zip(group, results, strict=True):
                    answer.set_result(result)


@twins
@chaos.poisoned_batch
def test_poisoned_batch(mlchaos, sound):
    """One bad row fails its batch-mates."""
    mlchaos.serve(Batcher(sound)).drive(ROWS, concurrency=4).assert_isolated()


def score_all(rows):
    """Return the score of each row."""
    return [row["amount"] * 2 for row in rows]


def score_each(rows):
    """Return the score of each row, and None for one that cannot be scored."""
    return [row["amount"] * 2 if isinstance(row.get("amount"), int) else None for row in rows]


def handle(rows, score):
    """Answer one request that has several rows."""
    return score(rows)


@twins
@chaos.poisoned_batch(target="pairs_requests:handle", kind="missing_field")
def test_poisoned_batch_by_its_function(mlchaos, sound):
    """One bad row of a request fails the good ones."""
    rows = [{"amount": number} for number in range(1, 4)]
    service = mlchaos.serve(lambda rows: handle(rows, score_each if sound else score_all))
    good = lambda value: value is not None and sum(one is not None for one in value)  # noqa: E731
    service.drive([rows] * 3).assert_fallback(lambda reply: good(reply.value) == 2)
