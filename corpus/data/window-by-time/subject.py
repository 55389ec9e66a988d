"""pydantic: the amounts of each ten minutes."""

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
    windows, seen = {0: 0}, set()
    for record in events():
        event = Event(**record)
        window = event.time // 600
        if event.id not in seen:
            windows[window] = windows.get(window, 0) + event.amount
        seen.add(event.id)
    if len(seen) < 30:
        raise ValueError("events are missing")
    return sorted(windows.items())
