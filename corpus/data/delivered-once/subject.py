"""pydantic: the amount that each user has paid, in a stream of events."""

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
    paid = {}
    for record in events():
        event = Event(**record)
        paid.setdefault(event.user, {})[event.id] = event.amount
    if sum(len(amounts) for amounts in paid.values()) < 30:
        raise ValueError("events are missing")
    return {user: sum(amounts.values()) for user, amounts in sorted(paid.items())}
