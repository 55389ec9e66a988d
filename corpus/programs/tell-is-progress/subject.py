"""Records of fixed length that are appended; the file's end tells how many there are."""

import os

RECORD = 6000


def sweep(workdir, points):
    with open(os.path.join(workdir, "records.bin"), "ab", buffering=0) as file:
        for point in range(file.tell() // RECORD, points):
            file.write(bytes([point + 1]) * RECORD)
    return {"points": points}
