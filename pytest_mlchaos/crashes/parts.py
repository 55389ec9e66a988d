"""Write a shard's part of an exploration into the journal, and join the parts of all shards.

A shard writes the verdict on each of its runs alone, with the facts that the verdict on all runs
together needs. Joining reads these, and judges as one machine does (``together.py``). It works on
entries of journals alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..core.entries import Entry, without_times
from ..core.entries import Exploration as ExplorationEntry
from ..core.privacy import message_text, remember_text
from ..core.shard_entries import Part, PartState
from ..core.validation import count_text
from ..runs.traces import Divergence
from .compare_files import EndRules
from .model import CrashOutcome, CrashState, EndDifference, File, Link, RunFacts, Tree
from .report import CrashReport
from .together import GoldenFacts, finish, undecided

__all__ = ["Joined", "ShardPart", "join_parts"]

OTHERS = "…"
"""Stands for the files that a run has read and that the golden run did not leave."""


# -- a shard writes --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPart:
    """A shard's part of an exploration.

    Attributes:
        part: What is known of the whole.
        golden: The facts of the golden run.
        files: The files that the golden run left.
        outcomes: The verdict on each run alone, with its facts.
        root: The work directory, which is shown as ``workdir``.
    """

    part: Part
    golden: GoldenFacts
    files: frozenset[str]
    outcomes: Sequence[CrashOutcome]
    root: str

    def entries(self, number: int, tolerates: Callable[[CrashOutcome], bool]) -> Iterator[Entry]:
        """Yield the entries, for the result of this number in the trial.

        ``tolerates`` returns True if the test's assertion allows the difference of an outcome.
        """
        golden, rules = self.golden, self.golden.rules
        places = _places(golden)
        yield dataclasses.replace(
            self.part,
            number=number,
            saved=golden.saved,
            completed=tuple(places[one] for one in golden.completed) if not golden.steps else (),
            compared=None if rules.given is None else tuple(sorted(rules.given)),
            compares_all=rules.says_nothing,
            texts=None if rules.texts is None else tuple(sorted(rules.texts)),
            grown=tuple(sorted(rules.grown)),
            is_final=golden.is_final,
        )
        for outcome in self.outcomes:
            yield self._state(number, outcome, places, tolerates(outcome))

    def _state(
        self,
        number: int,
        outcome: CrashOutcome,
        places: Mapping[tuple[str, bytes], int],
        tolerated: bool,
    ) -> PartState:
        state, found = outcome.state, outcome.divergence
        facts = outcome.facts or RunFacts()
        error, cause = outcome.error, ""
        if error is not None:
            hung = outcome.verdict == "hung"
            cause = str(error) if hung else message_text(error, self.root)
        read = outcome.read
        if read is not None:
            known = read & (self.files | set(self.golden.saved))
            read = known | ({OTHERS} if read - known else frozenset())
        return PartState(
            exploration=number,
            state=state.id,
            verdict=outcome.verdict,
            path=state.path,
            what=state.what,
            step=state.step,
            until=state.until,
            torn=state.torn,
            parent=state.parent,
            cut=state.cut,
            content=_digest_of_tree(state.tree) if state.parent is not None else "",
            error="" if error is None else type(error).__name__,
            cause=without_times(self._shown(cause)),
            detail=without_times(self._shown(outcome.detail)),
            divergence_step=None if found is None else found.step,
            component="" if found is None else found.component,
            difference="" if found is None else self._shown(found.detail),
            place=outcome.place,
            resumed_at=outcome.resumed_at,
            lost_steps=outcome.lost_steps,
            markers={_digest(name): count for name, count in outcome.markers.items()},
            read=None if read is None else tuple(sorted(read)),
            completed=()
            if self.golden.steps
            else tuple(sorted({places[one] for one in outcome.completed if one in places})),
            wrote=bool(outcome.completed),
            differences=tuple(
                (one.path, one.words, one.continued, one.log) for one in facts.differences
            ),
            had_save=facts.had_save,
            has_resumed=facts.has_resumed,
            mixed=facts.mixed,
            finished=facts.finished or outcome.finished,
            tolerated=tolerated,
            from_scratch=outcome.from_scratch,
            follows=outcome.follows or "",
            ended_early=outcome.ended_early,
            rank=outcome.rank,
        )

    def _shown(self, text: str) -> str:
        return text.replace(self.root, "workdir") if self.root else text


def _places(golden: GoldenFacts) -> dict[tuple[str, bytes], int]:
    """Return for each file that the golden run completed the number of the first equal one."""
    places: dict[tuple[str, bytes], int] = {}
    for number, one in enumerate(golden.completed):
        places.setdefault(one, number)
    return places


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _digest_of_tree(tree: Tree) -> str:
    """Return a digest that is equal for equal directories."""
    digest = hashlib.blake2b(digest_size=12)
    for path, node in sorted(tree.items()):
        held = (
            node.content.digest.hex()
            if isinstance(node, File)
            else f"-> {node.target}"
            if isinstance(node, Link)
            else "/"
        )
        digest.update(f"{path}\0{held}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


# -- the parts of all shards -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Joined:
    """An exploration that was put together.

    Attributes:
        report: The report, as one machine would have made it.
        missing: The reasons why it allows no verdict, if nothing in it fails.
    """

    report: CrashReport
    missing: Sequence[str]


def join_parts(
    parts: Sequence[tuple[Part, ExplorationEntry, Sequence[PartState]]], *, test: str, lost: int
) -> Joined:
    """Return the exploration that consists of these parts.

    Args:
        parts: The entries of each shard that was merged. All have the same states.
        test: The test's id.
        lost: The number of shards that are missing.
    """
    part, entry, _ = parts[0]
    golden = _golden(part, entry.steps)
    found, listed = _outcomes(parts)
    ordered = [found[name] for name in listed if name in found]
    outcomes, notes = finish(golden, ordered)
    states = [found[name].state if name in found else _unknown(name) for name in listed]
    tolerated = {one.state for _, _, several in parts for one in several if one.tolerated}
    missing = _missing(parts, [name for name in listed if name not in found], lost)
    if missing:
        unsure = {one.state.id for one in undecided(outcomes)}
        outcomes = [one for one in outcomes if one.state.id not in unsure]
    tried = {one.state.id for one in outcomes}
    shown = dict.fromkeys(note for _, one, _ in parts for note in one.notes)
    report = CrashReport(
        steps=entry.steps,
        writes=entry.writes,
        states=states,
        outcomes=outcomes,
        duration=0.0,
        notes=[*dict.fromkeys([*shown, *notes])],
        rejudged=lambda one, rtol, atol: _tolerated(one, tolerated),
        test=test,
        untried=[state for state in states if state.id not in tried],
        left_out="; ".join(missing),
        inconclusive="; ".join(missing),
        unseen=part.unseen,
        saves=entry.saves,
    )
    return Joined(report, missing)


def _golden(part: Part, steps: int) -> GoldenFacts:
    rules = EndRules(
        None if part.compared is None else frozenset(part.compared),
        part.compares_all,
        None if part.texts is None else frozenset(part.texts),
        frozenset(part.grown),
    )
    completed = tuple((str(place), b"") for place in part.completed)
    return GoldenFacts(steps, part.saved, completed, rules, part.is_final)


def _outcomes(
    parts: Sequence[tuple[Part, ExplorationEntry, Sequence[PartState]]],
) -> tuple[dict[str, CrashOutcome], list[str]]:
    """Return the outcomes by the names of their states, and the names in order of time.

    Two shards may find one state after different first crashes. The one that one machine would
    have found first stays.
    """
    found: dict[str, CrashOutcome] = {}
    for _, _, several in parts:
        for one in several:
            found.setdefault(one.state, _outcome(one))
    listed = list(parts[0][0].states)
    places = {name: place for place, name in enumerate(listed)}
    deeper = [name for part, _, _ in parts for name in part.deeper]
    levels: dict[int, list[str]] = {}
    for name in deeper:
        levels.setdefault(name.count(">"), []).append(name)
    contents: dict[str, str] = {}
    held = {one.state: one.content for _, _, several in parts for one in several if one.content}
    for level in sorted(levels):
        # The order of one machine: that of the first crashes. A shard keeps the order within one.
        for name in sorted(levels[level], key=lambda one: places[one.rpartition(">")[0]]):
            places[name] = len(places)
            content = held.get(name, name)
            if contents.setdefault(content, name) == name:
                listed.append(name)
    return found, listed


def _outcome(one: PartState) -> CrashOutcome:
    error: BaseException | None = None
    if one.error:
        error = type(one.error, (Exception,), {})(one.cause)
        remember_text(error, one.cause)
    divergence = None
    if one.divergence_step is not None:
        divergence = Divergence(one.divergence_step, one.component, one.difference)
    completed = tuple((str(place), b"") for place in one.completed)
    return CrashOutcome(
        CrashState(
            one.state,
            one.step,
            one.path,
            one.what,
            {},
            one.torn,
            one.until,
            one.parent,
            one.cut,
        ),
        one.verdict,  # type: ignore[arg-type]
        resumed_at=one.resumed_at,
        lost_steps=one.lost_steps,
        error=error,
        divergence=divergence,
        detail=one.detail,
        place=one.place,
        completed=completed or (((OTHERS, b""),) if one.wrote else ()),
        markers=one.markers,
        read=None if one.read is None else frozenset(one.read),
        follows=one.follows or None,
        ended_early=one.ended_early,
        rank=one.rank,
        from_scratch=one.from_scratch,
        finished=one.finished,
        facts=RunFacts(
            tuple(EndDifference(*several) for several in one.differences),
            one.had_save,
            one.has_resumed,
            one.mixed,
            one.finished,
        ),
    )


def _unknown(name: str) -> CrashState:
    """Return a state that no shard tried: only its name is known."""
    return CrashState(name, 0, "", "not tried", {})


def _tolerated(outcome: CrashOutcome, tolerated: set[str]) -> CrashOutcome:
    """Return the outcome as an assertion with a tolerance judges it."""
    is_of_files = outcome.divergence is not None and outcome.divergence.component == "files"
    if outcome.verdict != "diverged" or is_of_files or outcome.state.id not in tolerated:
        return outcome
    return dataclasses.replace(outcome, verdict="recovered", divergence=None)


def _missing(
    parts: Sequence[tuple[Part, ExplorationEntry, Sequence[PartState]]],
    unknown: Sequence[str],
    lost: int,
) -> list[str]:
    """Return the reasons why the parts allow no verdict on the whole."""
    missing = []
    untried = {name for part, _, _ in parts for name in part.untried}
    tried_kinds = {kind for part, _, _ in parts for kind in part.tried_kinds}
    kinds = [kind for part, _, _ in parts for kind in part.untried_kinds if kind not in tried_kinds]
    gone = [name for name in unknown if name not in untried]
    if gone:
        shards = count_text(lost, "lost shard") if lost else "no shard"
        verb = "would have tried" if lost else "has tried"
        missing.append(f"{shards} {verb} {len(gone)} crash states, for example {gone[0]}")
    elif lost:
        missing.append(f"{lost} shard{' is' if lost == 1 else 's are'} lost")
    if kinds:
        missing.append(f"no state of these kinds was tried: {', '.join(dict.fromkeys(kinds))}")
    elif untried and any(part.require_all for part, _, _ in parts):
        missing.append(f"{len(untried)} states were not tried, and require_all is set")
    missing += _different_ways([part for part, _, _ in parts], parts)
    return missing


def _different_ways(
    only: Sequence[Part],
    parts: Sequence[tuple[Part, ExplorationEntry, Sequence[PartState]]],
) -> Iterator[str]:
    """Yield the reasons why some shards' runs are in doubt, because of what others found."""
    fresh = next((part for part in only if part.fresh), None)
    if fresh is not None and not all(part.fresh for part in only):
        yield (
            f"shard {fresh.shard} made its runs in fresh processes, because {fresh.fresh}. The "
            f"others did not: run all shards with isolation='process'"
        )
    doubted = next((part for part in only if part.doubts), None)
    skipped = any(
        one.follows or one.ended_early
        for part, _, several in parts
        if not part.doubts
        for one in several
    )
    if doubted is not None and skipped:
        yield (
            f"shard {doubted.shard} found that {doubted.doubts[0]}. Other shards have skipped "
            f"states: run all shards with exhaustive=True"
        )
