"""Run all tests that need a CUDA device: ``python tests/gpu.py [PYTEST ARGUMENTS]``.

It uses the torch of this interpreter, and installs nothing, so it also works on a machine without a
network. ``nox -s gpu`` runs it. Without a device, each test is skipped with the reason.
"""

from __future__ import annotations

import os
import pathlib
import sys

import pytest
import torch

HERE = pathlib.Path(__file__).parent


def describe() -> str:
    """Return the devices and the versions that the results depend on."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__}, no CUDA device"
    names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    nccl = (
        ".".join(map(str, torch.cuda.nccl.version()))
        if torch.distributed.is_nccl_available()
        else "missing"
    )
    return f"torch {torch.__version__}, CUDA {torch.version.cuda}, NCCL {nccl}, {', '.join(names)}"


def main() -> int:
    """Run the tests, and say on what."""
    files = [path for path in HERE.glob("test_*.py") if "mark.gpu" in path.read_text()]
    os.chdir(HERE.parent)
    code = pytest.main(["-m", "gpu", "-rs", *map(str, sorted(files)), *sys.argv[1:]])
    print(describe())
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
