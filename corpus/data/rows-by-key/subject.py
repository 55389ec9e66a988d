"""sqlite3: events are loaded into a table, and summed up there."""

import sqlite3

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
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE paid (id INTEGER PRIMARY KEY, user TEXT, amount INTEGER)")
    for record in events():
        event = Event(**record)
        row = (event.id, event.user, event.amount)
        database.execute("INSERT OR REPLACE INTO paid VALUES (?, ?, ?)", row)
    if database.execute("SELECT COUNT(DISTINCT id) FROM paid").fetchone() != (30,):
        raise ValueError("events are missing")
    return database.execute("SELECT user, SUM(amount) FROM paid GROUP BY user").fetchall()
