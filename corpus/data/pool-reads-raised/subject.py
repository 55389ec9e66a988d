"""multiprocessing: the sizes of files, read by the workers of a pool."""

import multiprocessing


def size(path):
    content = path.read_bytes()
    if len(content) != 100:
        raise ValueError(f"{path} is not complete")
    return len(content)


def prepare(workdir):
    for number in range(4):
        (workdir / f"{number}.txt").write_bytes(bytes(100))


def pipeline(workdir):
    paths = [workdir / f"{number}.txt" for number in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(size, paths, chunksize=1))
