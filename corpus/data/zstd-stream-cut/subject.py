"""zstandard: the number of words of each length in a compressed text."""

import random
from collections import Counter

import zstandard


def prepare(workdir):
    draw = random.Random(0)
    words = " ".join("".join(draw.choices("abcdef", k=draw.randint(1, 9))) for _ in range(60000))
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    (workdir / "words.zst").write_bytes(compressor.compress(words.encode()))


def pipeline(workdir):
    compressed = (workdir / "words.zst").read_bytes()
    decompressor = zstandard.ZstdDecompressor()
    words = decompressor.stream_reader(compressed).read()
    return sorted(Counter(len(word) for word in words.split()).items())
