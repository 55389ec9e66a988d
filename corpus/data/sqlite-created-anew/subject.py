"""sqlite3: the users of each plan."""

import sqlite3


def prepare(workdir):
    database = sqlite3.connect(workdir / "users.db")
    database.execute("CREATE TABLE users (plan TEXT)")
    plans = [("free" if number % 3 else "paid",) for number in range(900)]
    database.executemany("INSERT INTO users VALUES (?)", plans)
    database.commit()
    database.close()


def pipeline(workdir):
    database = sqlite3.connect(workdir / "users.db")
    database.execute("CREATE TABLE IF NOT EXISTS users (plan TEXT)")
    return dict(database.execute("SELECT plan, COUNT(*) FROM users GROUP BY plan").fetchall())
