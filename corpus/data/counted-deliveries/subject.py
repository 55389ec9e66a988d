"""prometheus_client: a counter of the events of each user."""

from prometheus_client import CollectorRegistry, Counter
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
    registry = CollectorRegistry()
    counter = Counter("events", "Events of a user.", ["user"], registry=registry)
    seen = set()
    for record in events():
        event = Event(**record)
        counter.labels(event.user).inc()
        seen.add(event.id)
    if len(seen) < 30:
        raise ValueError("events are missing")
    return [registry.get_sample_value("events_total", {"user": user}) for user in "abc"]
