"""SQLite: a database that names the checkpoint."""

import contextlib
import os
import sqlite3
import struct


def replace(path, content):
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)


def train(workdir, steps):
    path = os.path.join(workdir, "total.bin")
    with contextlib.closing(sqlite3.connect(os.path.join(workdir, "runs.db"))) as database:
        database.execute("create table if not exists run (id integer primary key, step integer)")
        database.execute("insert or ignore into run values (1, 0)")
        database.commit()
        (step,) = database.execute("select step from run").fetchone()
        total = 1
        if step:
            with open(f"{path}.{step}", "rb") as file:
                (total,) = struct.unpack("<q", file.read())
        while step < steps:
            total = (total * 3 + step) % 10007
            step += 1
            if step % 2 == 0:
                replace(f"{path}.{step}", struct.pack("<q", total))
                database.execute("update run set step = ?", (step,))
                database.commit()
    return {"step": step, "total": total / 10007}
