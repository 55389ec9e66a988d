"""gzip: the errors in a log to which each job has appended a member."""

import gzip


def prepare(workdir):
    with open(workdir / "jobs.log.gz", "wb") as file:
        for job in range(5):
            lines = "".join(f"job {job}: {'error' if n % 4 == 0 else 'ok'}\n" for n in range(40))
            file.write(gzip.compress(lines.encode(), mtime=0))
        file.write(gzip.compress(b"end: 200 lines\n", mtime=0))


def pipeline(workdir):
    with gzip.open(workdir / "jobs.log.gz", "rt") as file:
        lines = file.readlines()
    return sum(line.endswith("error\n") for line in lines)
