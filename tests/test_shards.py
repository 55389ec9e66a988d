"""Shards: which part of a session is whose, and what the environments say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_mlchaos.core.shards import Shard
from pytest_mlchaos.errors import BadArgument


@pytest.mark.parametrize("text", ["0/8", "9/8", "x", "3", "3/0", "-1/8", "1/8/2", "", "1.5/2"])
def test_a_wrong_shard_is_refused_with_what_was_given(text):
    """The message shows the text and the form."""
    with pytest.raises(BadArgument, match="must be K/N with K from 1 to N") as caught:
        Shard.parse(text)
    assert repr(text) in str(caught.value)


def test_each_name_belongs_to_one_shard():
    """Nothing is lost, and nothing is run twice."""
    shards = [Shard(index, 8) for index in range(1, 9)]
    for number in range(400):
        assert sum(shard.owns(f"last.ckpt@{number}#3") for shard in shards) == 1


def test_the_shards_have_about_the_same_size():
    """The hash spreads names that differ in a number."""
    names = [f"last.ckpt@{number}#{number // 7}" for number in range(8000)]
    for index in range(1, 9):
        assert 850 < sum(map(Shard(index, 8).owns, names)) < 1150


def test_the_division_is_the_same_in_every_process():
    """It does not depend on PYTHONHASHSEED, and these values hold for all versions."""
    code = (
        "from pytest_mlchaos.core.shards import Shard\n"
        "print([i for i in range(1, 6) for n in 'abcdefgh' if Shard(i, 5).owns(n)])"
    )
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.strip() == OWNERS


def test_seeds_of_shards_are_disjoint():
    """Two shards never search with one seed."""
    seeds = {Shard(index, 100).seed_for(7, "test_x") for index in range(1, 101)}
    assert len(seeds) == 100


OWNERS = "[1, 1, 1, 2, 2, 4, 4, 5]"

ENVIRONMENTS = {
    "Kubernetes": ({"JOB_COMPLETION_INDEX": "0", "MLCHAOS_SHARD_COUNT": "100"}, "1/100"),
    "GitHub": ({"MLCHAOS_SHARD_INDEX": "3", "MLCHAOS_SHARD_COUNT": "4"}, "4/4"),
    "GitLab": ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "5"}, "1/5"),
    "Buildkite": (
        {"BUILDKITE_PARALLEL_JOB": "0", "BUILDKITE_PARALLEL_JOB_COUNT": "5"},
        "1/5",
    ),
    "SLURM": (
        {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "2"},
        "4/4",
    ),
    "SLURM with a step": (
        {
            "SLURM_ARRAY_TASK_ID": "5",
            "SLURM_ARRAY_TASK_COUNT": "4",
            "SLURM_ARRAY_TASK_MIN": "1",
            "SLURM_ARRAY_TASK_MAX": "7",
            "SLURM_ARRAY_TASK_STEP": "2",
        },
        "3/4",
    ),
    "torchrun": ({"RANK": "1", "WORLD_SIZE": "2"}, "2/2"),
    "ours before theirs": (
        {
            "MLCHAOS_SHARD_INDEX": "6",
            "MLCHAOS_SHARD_COUNT": "7",
            "RANK": "1",
            "WORLD_SIZE": "2",
        },
        "7/7",
    ),
    "two that agree": (
        {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "5", "RANK": "1", "WORLD_SIZE": "5"},
        "2/5",
    ),
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_auto_reads_the_variables_of_each_provider(case):
    """Some count from 0, some from 1, and SLURM from anywhere."""
    variables, shard = ENVIRONMENTS[case]
    assert str(Shard.parse("auto", variables)) == shard


WRONG = {
    "none": ({}, "names no shard"),
    "GitLab, not parallel": ({"CI_NODE_TOTAL": "1"}, "names no shard"),
    "Kubernetes without a count": (
        {"JOB_COMPLETION_INDEX": "3"},
        "MLCHAOS_SHARD_COUNT must have the Job's completions",
    ),
    "GitHub, not mapped": ({"GITHUB_ACTIONS": "true"}, "strategy.job-index"),
    "two that disagree": (
        {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "5", "RANK": "1", "WORLD_SIZE": "2"},
        "ambiguous .*GitLab: 2/5 and torchrun: 2/2",
    ),
    "an index beyond the count": (
        {"JOB_COMPLETION_INDEX": "8", "MLCHAOS_SHARD_COUNT": "8"},
        "JOB_COMPLETION_INDEX=8 is not one of MLCHAOS_SHARD_COUNT=8 shards, counted from 0",
    ),
    "a SLURM array with gaps": (
        {
            "SLURM_ARRAY_TASK_ID": "2",
            "SLURM_ARRAY_TASK_COUNT": "3",
            "SLURM_ARRAY_TASK_MIN": "1",
            "SLURM_ARRAY_TASK_MAX": "9",
        },
        "needs a SLURM array without gaps",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_auto_refuses_what_it_cannot_be_sure_of(case):
    """A shard that is guessed wrongly would leave states out."""
    variables, words = WRONG[case]
    with pytest.raises(BadArgument, match=words):
        Shard.auto(variables)
