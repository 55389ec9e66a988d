"""webdataset: the number of samples of each class in a shard."""

import io
import json
import tarfile
from collections import Counter

import webdataset


def prepare(workdir):
    with tarfile.open(workdir / "train-0.tar", "w") as tar:
        for number in range(40):
            label = str(number % 3).encode()
            member = tarfile.TarInfo(f"{number:04}.cls")
            member.size = len(label)
            tar.addfile(member, io.BytesIO(label))
    (workdir / "index.json").write_text(json.dumps({"train-0.tar": 40}))


def pipeline(workdir):
    dataset = webdataset.WebDataset(
        str(workdir / "train-0.tar"), shardshuffle=False, handler=webdataset.reraise_exception
    )
    labels = [int(sample["cls"]) for sample in dataset]
    if len(labels) != json.loads((workdir / "index.json").read_text())["train-0.tar"]:
        raise ValueError("train-0.tar is not complete")
    return sorted(Counter(labels).items())
