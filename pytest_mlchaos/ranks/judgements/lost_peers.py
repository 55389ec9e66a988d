"""Explain why ranks lost their peers: links were cut, a rank died, or neither.

A rank behind a cut waits for its own time limit, because no connection is closed. A rank whose peer
has died notices at once that the connection is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from ...core.journal import Strike
from ...core.records import WorldRecord

__all__ = ["LostPeer", "how_lost", "tell_lost_peers"]

LostPeer = Literal["", "timed out", "closed"]

_TIMED_OUT = ("timed out", "timeout")
_CLOSED = ("closed by peer", "connection reset", "broken pipe", "connection refused")
_BACKENDS = ("gloo", "nccl", "processgroup", "monitoredbarrier", "tcpstore")


def how_lost(error: BaseException | None) -> LostPeer:
    """Return how a collective lost its peer, as the error of the backend says it.

    Return "" for an error of a different kind.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error).lower()
        if isinstance(error, RuntimeError) and any(name in text for name in _BACKENDS):
            # gloo prints the time limit for a closed connection, too
            if any(part in text for part in _CLOSED):
                return "closed"
            if any(part in text for part in _TIMED_OUT):
                return "timed out"
        error = error.__cause__ or error.__context__
    return ""


def tell_lost_peers(record: WorldRecord) -> Iterator[str]:
    """Yield a line that says why ranks lost their peers, if any did."""
    lost = {
        rank.rank: how_lost(rank.load_error()) for rank in record.ranks if rank.outcome == "failed"
    }
    timed_out = [rank for rank, how in lost.items() if how == "timed out"]
    closed = [rank for rank, how in lost.items() if how == "closed"]
    if not timed_out and not closed:
        return
    effects = []
    if timed_out:
        effects.append(f"{_ranks(timed_out)} timed out")
    if closed:
        effects.append(f"{_ranks(closed)} found a connection closed by its peer")
    yield f"  {', and '.join(_causes(record, lost))}: {', and '.join(effects)}"


def _causes(record: WorldRecord, lost: Mapping[int, LostPeer]) -> Iterator[str]:
    """Yield what happened to links and ranks, a partition first."""
    strikes = [strike for rank in record.ranks for strike in rank.faults]
    absent = ["no link was cut", "no rank died"]
    for effect, words in (
        ("cut", "network partition, {} cut at {}"),
        ("slow", "{} slow from {} on"),
        ("corrupt", "{} corrupt at {}"),
    ):
        of_effect = [strike for strike in strikes if effect in strike.details]
        if of_effect:
            yield words.format(_links(of_effect, effect), _place(of_effect))
            if effect == "cut":
                absent.remove("no link was cut")
    cause_is_known = False
    for rank in record.ranks:
        if rank.outcome == "failed" and rank.exitcode is not None and rank.exitcode < 0:
            yield f"rank {rank.rank} died ({rank.ended})"
            absent = [text for text in absent if text != "no rank died"]
        elif rank.outcome == "failed" and not lost[rank.rank]:
            yield f"rank {rank.rank} failed by itself"
        elif rank.outcome == "halted":
            yield f"rank {rank.rank} {rank.ended}"
            cause_is_known = True
        for strike in rank.faults:
            if "launches" in strike.details:
                how = "skipped" if strike.details["launches"] == 0 else "doubled"
                yield f"rank {rank.rank} {how} {strike.place.removeprefix('at ')}"
                cause_is_known = True
    if cause_is_known:
        return
    if len(absent) == 2:
        for rank in record.ranks:
            if rank.outcome == "finished":
                yield f"rank {rank.rank} had returned after {_count_steps(rank.steps)}"
            elif rank.outcome == "hung":
                yield f"rank {rank.rank} was still running"
    yield from absent


def _links(strikes: Sequence[Strike], effect: str) -> str:
    pairs = sorted(
        {
            tuple(sorted(map(int, pair.split("-"))))
            for strike in strikes
            for pair in str(strike.details[effect]).split(", ")
        }
    )
    names = ", ".join(f"{low}-{high}" for low, high in pairs)
    return f"the links {names} were" if len(pairs) > 1 else f"the link {names} was"


def _place(strikes: Sequence[Strike]) -> str:
    """Return the first collective at which a fault took effect."""
    first = min(strikes, key=lambda strike: strike.visit)
    step = first.details.get("step")
    steps = "" if step is None else f", after {_count_steps(step)}"
    return f"collective {first.visit} ({first.details.get('op')}{steps})"


def _count_steps(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"


def _ranks(ranks: Sequence[int]) -> str:
    names = [f"rank {rank}" for rank in ranks]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
