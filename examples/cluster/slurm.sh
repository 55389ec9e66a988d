#!/bin/bash
# One shard per task of an array, and a job that merges them. Submit both with:
#   sbatch --parsable examples/cluster/slurm.sh            (prints the number of the array)
#   sbatch --dependency=afterany:NUMBER examples/cluster/slurm_merge.sh
# Set the lines with "your".
#SBATCH --job-name=chaos
#SBATCH --array=1-100
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --output=chaos-%A-%a.log
#SBATCH --requeue

set -u
cd "${SLURM_SUBMIT_DIR}"
source .venv/bin/activate  # your environment, on a disk that all nodes share

journals="${SLURM_SUBMIT_DIR}/journals"
mkdir -p "${journals}"
# `auto` reads the number of this task and of all tasks from SLURM's variables.
# The exit code of one shard is not a verdict, so `merge` decides.
python -m pytest tests/ \
    --mlchaos-shard=auto \
    --mlchaos-journal="${journals}/shard-${SLURM_ARRAY_TASK_ID}.jsonl" \
    || true
