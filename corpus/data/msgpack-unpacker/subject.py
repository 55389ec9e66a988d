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
    for sensor, value in readings:
        highest[sensor] = max(value, highest.get(sensor, value))
    return highest
