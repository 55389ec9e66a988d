"""pyarrow: a table that is read through a memory mapping, and the step beside it."""

import os

import pyarrow as pa


def replace(path, content):
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)


def read(path):
    with pa.memory_map(path) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all().column("total").to_pylist()


def written(totals):
    sink = pa.BufferOutputStream()
    table = pa.table({"total": pa.array(totals, pa.int64())})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def train(workdir, steps):
    state, counter = os.path.join(workdir, "state.arrow"), os.path.join(workdir, "step.txt")
    step, totals = 0, [1, 2, 3]
    if os.path.exists(counter):
        with open(counter) as file:
            step = int(file.read())
        totals = read(f"{state}.{step}")
    while step < steps:
        totals = [(total * 3 + step) % 10007 for total in totals]
        step += 1
        if step % 2 == 0:
            replace(f"{state}.{step}", written(totals))
            replace(counter, str(step).encode())
    return {"step": step, "mean": sum(totals) / 3}
