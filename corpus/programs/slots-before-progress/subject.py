"""Results in the slots of a file of fixed length, and the progress beside it."""

import os
import struct


def replace(path, content):
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)


def put(path, slot, value):
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, struct.pack("<q", value), slot * 8)
    os.close(descriptor)


def sweep(workdir, points):
    results, progress = os.path.join(workdir, "results.bin"), os.path.join(workdir, "progress.bin")
    if not os.path.exists(results):
        replace(results, bytes(8 * points))
    done = 0
    if os.path.exists(progress):
        with open(progress, "rb") as file:
            (done,) = struct.unpack("<q", file.read())
    for point in range(done, points):
        put(results, point, (point + 2) ** 5)
        replace(progress, struct.pack("<q", point + 1))
    return {"points": points}
