"""pydantic: the last amount of each user, in a stream of events."""

from pydantic import BaseModel


class Event(BaseModel, strict=True):
    id: int
    time: int
    user: str
    amount: int


def prepare(workdir):
    pass


def events():
    for number in range(30):
        yield {"id": number, "time": 60 * number, "user": "abc"[number % 3], "amount": number % 7}


def pipeline(workdir):
    last, seen = {}, set()
    for record in events():
        event = Event(**record)
        seen.add(event.id)
        last[event.user] = event
    if len(seen) < 30:
        raise ValueError("events are missing")
    return {user: event.amount for user, event in sorted(last.items())}
