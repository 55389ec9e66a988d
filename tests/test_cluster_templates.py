"""The templates for schedulers of clusters."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_mlchaos.core.shards import Shard

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", ["slurm.sh", "slurm_merge.sh"])
def test_scripts_of_slurm_are_sound_bash(name):
    """And their options come before the first command, because SLURM reads no further."""
    path = FOLDER / name
    subprocess.run(["bash", "-n", path], check=True)
    lines = [line for line in path.read_text().splitlines() if line]
    commands = [number for number, line in enumerate(lines) if not line.startswith("#")]
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH --")]
    assert lines[0] == "#!/bin/bash"
    assert options
    assert max(options) < commands[0]


def test_the_array_of_slurm_has_no_gap():
    """``--mlchaos-shard=auto`` reads its numbers."""
    first, last = re.search(r"--array=(\d+)-(\d+)", (FOLDER / "slurm.sh").read_text()).groups()
    tasks = {
        "SLURM_ARRAY_TASK_ID": last,
        "SLURM_ARRAY_TASK_COUNT": str(int(last) - int(first) + 1),
        "SLURM_ARRAY_TASK_MIN": first,
        "SLURM_ARRAY_TASK_MAX": last,
    }
    assert str(Shard.parse("auto", tasks)) == "100/100"


def test_the_job_of_kubernetes_is_an_indexed_one_with_its_count():
    """The pods find their shards, and a pod that is lost gets a new one."""
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["backoffLimitPerIndex"] > 0
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    variables["JOB_COMPLETION_INDEX"] = str(spec["completions"] - 1)
    assert str(Shard.parse("auto", variables)) == "100/100"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    (script,) = container["args"]
    subprocess.run(["sh", "-n", "-c", script], check=True)
    assert "--mlchaos-shard=auto" in script
