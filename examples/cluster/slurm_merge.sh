#!/bin/bash
# Merge the journals of the array (see slurm.sh). The exit code of this job is the verdict: a task
# that was lost makes it INCONCLUSIVE, with exit code 1.
#SBATCH --job-name=chaos-merge
#SBATCH --cpus-per-task=1
#SBATCH --time=00:10:00
#SBATCH --output=chaos-merge-%j.log

set -eu
cd "${SLURM_SUBMIT_DIR}"
source .venv/bin/activate  # your environment
python -m pytest_mlchaos merge journals/shard-*.jsonl --output merged.jsonl --report report.txt
