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
    database = sqlite3.connect(f"file:{workdir}/users.db?mode=ro", uri=True)
    if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        raise ValueError("users.db is damaged")
    if (workdir / "users.db").stat().st_size % 4096:
        raise ValueError("the last page of users.db is cut")
    return dict(database.execute("SELECT plan, COUNT(*) FROM users GROUP BY plan").fetchall())
