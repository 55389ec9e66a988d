"""Simulate a session on many workers, with deaths and stragglers, by the code that hands out shares.

``python benchmarks/cluster_simulation.py`` prints tables, and ``--svg FILE`` writes the curve of
the docs. Nothing runs: an engine whose clock jumps from event to event takes the place of a
cluster, and ``pytest_mlchaos.cluster`` makes every decision.

What it does not simulate: the network, a scheduler that lets workers wait for a place, and tests
that cannot be divided.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import random
from collections.abc import Sequence
from pathlib import Path

from pytest_mlchaos.cluster.allocation import Allocation, Share
from pytest_mlchaos.cluster.engine import Done, Event, Gone, Ready, conduct
from pytest_mlchaos.cluster.options import SHARDS_PER_WORKER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster and a session. All times are in units of the mean time of one state.

    Attributes:
        workers: The number of workers.
        states: The number of crash states.
        golden: The time of a golden run, which each share pays, with the start of its pytest.
        deaths: The part of the workers that die, at random moments of the ideal session.
        restart: The time until a new worker takes the place of a dead one, or None if none does.
        detection: The time until a death is noticed.
        stragglers: The part of the workers that are slow.
        slowness: How many times as long a straggler takes.
        spread: The standard deviation of the time of a state.
        seed: The seed of everything random.
    """

    workers: int = 100
    states: int = 10_000
    golden: float = 10.0
    deaths: float = 0.1
    restart: float | None = 5.0
    detection: float = 2.0
    stragglers: float = 0.0
    slowness: float = 3.0
    spread: float = 0.5
    seed: int = 0

    @property
    def ideal(self) -> float:
        """Return the time of a session in which nothing goes wrong and nothing is lost."""
        return self.golden + self.states / self.workers


class SimulatedEngine:
    """An engine whose workers only let a clock go on."""

    def __init__(self, cluster: Cluster, shards: int) -> None:
        self._cluster = cluster
        self._random = random.Random(cluster.seed)
        self._states = [0] * shards
        for _ in range(cluster.states):
            self._states[self._random.randrange(shards)] += 1
        self._now = 0.0
        self._events: list[tuple[float, int, Event]] = []
        self._number = 0
        self._dies: dict[str, float] = {}
        self._slow: set[str] = set()
        self._given: dict[str, int] = {}
        self._left = 0
        self.shares = 0

    def start(self, workers: int) -> None:
        """Start the workers, and draw their fates."""
        names = [f"worker {number}" for number in range(workers)]
        draw = self._random
        for name in draw.sample(names, round(self._cluster.deaths * workers)):
            self._dies[name] = draw.uniform(0, self._cluster.ideal)
        self._slow.update(draw.sample(names, round(self._cluster.stragglers * workers)))
        self._left = workers
        for name in names:
            self._push(0.0, Ready(name))

    def _push(self, time: float, event: Event) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, event))
        self._given[event.worker] = self._number

    def workers(self) -> int:
        """Return the number of workers that are there."""
        return self._left

    def give(self, worker: str, share: Share) -> None:
        """Find out when the share ends, or when the worker dies."""
        self.shares += 1
        count = sum(self._states[shard - 1] for shard in share.shards)
        noise = self._random.gauss(0.0, self._cluster.spread * count**0.5)
        seconds = self._cluster.golden + max(0.5 * count, count + noise)
        ends = self._now + seconds * (self._cluster.slowness if worker in self._slow else 1.0)
        dies = self._dies.get(worker)
        if dies is not None and dies < ends:
            self._push(max(dies, self._now) + self._cluster.detection, Gone(worker))
        else:
            self._push(ends, Done(worker, 0))

    def wait(self, seconds: float) -> Sequence[Event]:
        """Let the clock jump to the next event."""
        is_busy = len(self._events) >= self._left  # nothing to decide before the next event
        if not self._events or (not is_busy and self._events[0][0] > self._now + seconds):
            self._now += seconds
            return []
        time, number, event = heapq.heappop(self._events)
        self._now = max(self._now, time)
        if self._given.get(event.worker) != number:
            return []  # it was cancelled
        if isinstance(event, Gone):
            self._died(event.worker)
        return [event]

    def _died(self, worker: str) -> None:
        if self._cluster.restart is None:
            self._left -= 1
        else:
            self._push(self._now + self._cluster.restart, Ready(f"{worker}, restarted"))

    def cancel(self, worker: str) -> None:
        """End the share of a worker at once."""
        self._push(self._now, Done(worker, 2))

    def stop(self) -> None:
        """Nothing runs."""

    def now(self) -> float:
        """Return the simulated time."""
        return self._now


@dataclasses.dataclass(frozen=True)
class Simulated:
    """The result of a simulation: its time, its shares, and the shards that were given up."""

    seconds: float
    shares: int
    given_up: int


def simulate(cluster: Cluster) -> Simulated:
    """Run a session on a simulated cluster."""
    shards = min(cluster.workers * SHARDS_PER_WORKER, max(1, cluster.states))
    engine = SimulatedEngine(cluster, shards)
    allocation = Allocation(shards, cluster.workers)
    engine.start(cluster.workers)
    conduct(engine, allocation, lambda done, share: str(share))
    if sorted(allocation.done) != list(range(1, shards + 1)):
        raise AssertionError("the session ended before all shards were done")
    return Simulated(engine.now(), engine.shares, len(allocation.given_up))


def speedup(workers: int, states: int, **options: float) -> float:
    """Return how many times as fast these states are on these workers as on one."""
    cluster = Cluster(workers=workers, states=states, **options)
    alone = cluster.golden + cluster.states
    return alone / simulate(cluster).seconds


CURVES = {
    "nothing goes wrong": {"deaths": 0.0},
    "10 % of the workers die": {},
    "10 % die, 5 % are slow": {"stragglers": 0.05},
}
WORKERS = (1, 25, 50, 100, 150, 200, 300)


def chart(points: Sequence[tuple[str, int, float]]) -> dict[str, object]:
    """Return the curve of speed-up against workers as a specification of Vega-Lite."""
    rows = [{"case": case, "workers": workers, "speed-up": up} for case, workers, up in points]
    ideal = [{"case": "ideal", "workers": count, "speed-up": count} for count in WORKERS]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 480,
        "height": 300,
        "background": "white",
        "title": "10,000 crash states, simulated (golden run: 10 states)",
        "data": {"values": [*ideal, *rows]},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {
                "field": "workers",
                "type": "quantitative",
            },
            "y": {"field": "speed-up", "type": "quantitative"},
            "color": {
                "field": "case",
                "type": "nominal",
                "title": None,
                "sort": ["ideal", *CURVES],
            },
            "strokeDash": {
                "condition": {"test": "datum.case === 'ideal'", "value": [4, 4]},
                "value": [1, 0],
            },
        },
    }


def main() -> None:
    """Print the bound and the curve, and write the curve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--svg", type=Path, help="write the curve here")
    given = parser.parse_args()
    print("10,000 states on 100 workers, as a multiple of (golden run + 100 states), 10 seeds:")
    for golden in (0, 3, 5, 10, 20):
        for name, options in CURVES.items():
            clusters = [Cluster(golden=golden, seed=seed, **options) for seed in range(10)]
            ratios = sorted(simulate(one).seconds / one.ideal for one in clusters)
            print(
                f"  golden run {golden:2} states, {name:24}: {ratios[4]:.2f}, at most {ratios[9]:.2f}"
            )
    points = [
        (name, workers, speedup(workers, 10_000, golden=10.0, **options))
        for name, options in CURVES.items()
        for workers in WORKERS
    ]
    print("The same states, compared with one worker:")
    for name, workers, up in points:
        print(f"  {workers:4} workers, {name:24}: {up:6.1f} times as fast")
    print("A million states:")
    for name, options in CURVES.items():
        up = speedup(300, 1_000_000, golden=10.0, **options)
        print(f"   300 workers, {name:24}: {up:6.1f} times as fast")
    if given.svg:
        import vl_convert

        given.svg.write_text(vl_convert.vegalite_to_svg(json.dumps(chart(points))))


if __name__ == "__main__":
    main()
