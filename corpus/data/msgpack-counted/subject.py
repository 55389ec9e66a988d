"""msgpack: the highest reading of each sensor."""

import msgpack


def prepare(workdir):
    with open(workdir / "readings.msgpack", "wb") as file:
        file.write(msgpack.packb(300))
        for number in range(300):
            file.write(msgpack.packb([f"sensor-{number % 5}", number * 37 % 101 + number]))


def pipeline(workdir):
    highest = {}
    with open(workdir / "readings.msgpack", "rb") as file:
        count, *readings = msgpack.Unpacker(file)
    if len(readings) != count:
        raise EOFError(f"readings.msgpack has {len(readings)} of {count} readings")
    for sensor, value in readings:
        highest[sensor] = max(value, highest.get(sensor, value))
    return highest
