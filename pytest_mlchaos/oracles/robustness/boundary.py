"""Attack a classifier of which only the decisions are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .attack import Attack

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["attack_by_decisions"]

FIRST_POINTS = 40
"""The number of random points at which a wrong decision is looked for."""
MOST_PROBES = 100
"""The number of queries in one estimate of the direction, at first."""
HALVINGS = 12
"""The number of halvings of a distance or of a step."""
MOST_NUMBERS = 4_000_000
"""The size of the array of points that is asked at a time, at first (32 MB)."""


def attack_by_decisions(
    is_wrong: Callable[[Array, Array], Array],
    inputs: Array,
    attack: Attack,
    seed: int,
) -> tuple[Array, Array]:
    """Return inputs within epsilon that the classifier decides wrongly, where some were found.

    The attack is HopSkipJump (Chen et al., 2020): it begins with a wrongly decided point far away,
    moves it to the decision boundary, estimates from decisions around it in which direction the
    boundary is nearer to the input, and repeats this until the point is within epsilon or the
    queries are spent. All samples are attacked together.

    Args:
        is_wrong: A function of points (an array of one row for each) and of the numbers of their
            samples. It returns True for each point that is decided as the attacker wants.
        inputs: The inputs, an array with one entry of the first axis for each sample.
        attack: The settings. ``queries`` is the number of queries for each sample.
        seed: The seed of the random numbers.

    Returns:
        The perturbed inputs, and the number of queries that each sample took. Inputs for which no
        wrong decision was found within epsilon are moved by epsilon in the best known direction.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    size = max(1, MOST_NUMBERS // (MOST_PROBES * max(1, inputs[0].size)))
    results = []
    for start in range(0, len(inputs), size):
        search = _Search(
            lambda points, samples, start=start: is_wrong(points, samples + start),
            inputs[start : start + size],
            attack,
            rng,
            inputs.reshape(len(inputs), -1),
        )
        search.begin()
        step = 0
        while (active := search.active()).size:
            step += 1
            search.improve(active, step)
        results.append(search.result())
    points, used = zip(*results, strict=True)
    return np.concatenate(points), np.concatenate(used)


class _Search:
    """The points of all samples on their way to the inputs."""

    def __init__(self, is_wrong: Any, inputs: Array, attack: Attack, rng: Any, pool: Array) -> None:
        import numpy as np

        self.ask, self.attack, self.rng = is_wrong, attack, rng
        self.pool = pool
        self.shape = inputs.shape
        self.inputs = inputs.reshape(len(inputs), -1).astype(np.float64)
        self.dtype = inputs.dtype
        self.points = self.inputs.copy()
        self.found = np.zeros(len(inputs), dtype=bool)
        self.used = np.zeros(len(inputs), dtype=int)
        self.stuck = np.zeros(len(inputs), dtype=bool)
        self.low, self.high = attack.clip or (-np.inf, np.inf)
        spread = float(self.inputs.std()) or 1.0
        self.reach = attack.clip or (
            float(self.inputs.min()) - 3 * spread,
            float(self.inputs.max()) + 3 * spread,
        )

    def wrong(self, points: Array, samples: Array) -> Array:
        """Ask for decisions on points of these samples, and count the queries."""
        import numpy as np

        if not len(points):
            return np.zeros(0, dtype=bool)
        np.add.at(self.used, samples, 1)
        rows = points.reshape(-1, *self.shape[1:]).astype(self.dtype)
        return np.asarray(self.ask(rows, samples), dtype=bool)

    def distances(self, points: Array, samples: Array) -> Array:
        """Return the distance of each point from the input of its sample."""
        import numpy as np

        change = points - self.inputs[samples]
        if self.attack.norm == "inf":
            return np.asarray(np.abs(change).max(1))
        return np.asarray(np.sqrt((change**2).sum(1)))

    def within(self, points: Array, samples: Array, epsilon: Any) -> Array:
        """Return the points, moved to a distance of at most epsilon from their inputs."""
        import numpy as np

        origin = self.inputs[samples]
        change = points - origin
        epsilon = np.broadcast_to(np.asarray(epsilon, float), (len(points),))[:, None]
        if self.attack.norm == "inf":
            change = np.clip(change, -epsilon, epsilon)
        else:
            lengths = np.sqrt((change**2).sum(1, keepdims=True))
            change = change * np.minimum(1, epsilon / np.maximum(lengths, 1e-300))
        return np.clip(origin + change, self.low, self.high)

    def begin(self) -> None:
        """Find a wrongly decided point for each sample: within epsilon, a different input, or any."""
        import numpy as np

        width = self.inputs.shape[1]
        # An input that is decided wrongly as it is needs no attack.
        self._take(self.inputs.copy(), np.arange(len(self.inputs)))
        for turn in range(FIRST_POINTS):
            samples = np.flatnonzero(~self.found & (self.used < self.attack.queries))
            if not len(samples):
                return
            origin = self.inputs[samples]
            if turn % 4 == 0:
                signs = self.rng.choice((-1.0, 1.0), (len(samples), width))
                points = self.within(
                    origin + signs * 2 * self.attack.epsilon, samples, self.attack.epsilon
                )
            elif turn % 2 and len(self.pool) > 1:
                points = self.pool[self.rng.integers(len(self.pool), size=len(samples))]
                points = points.astype(np.float64)
            else:
                points = self.rng.uniform(*self.reach, (len(samples), width))
            self._take(points, samples)
        self.stuck |= ~self.found

    def _take(self, points: Array, samples: Array) -> None:
        wrong = self.wrong(points, samples)
        chosen = samples[wrong]
        self.points[chosen], self.found[chosen] = points[wrong], True

    def active(self) -> Array:
        """Return the samples whose point is too far away, and that have queries left."""
        import numpy as np

        everyone = np.arange(len(self.inputs))
        far = self.distances(self.points, everyone) > self.attack.epsilon
        left = self.used + HALVINGS + 2 < self.attack.queries
        return np.flatnonzero(self.found & far & left & ~self.stuck)

    def improve(self, samples: Array, step: int) -> None:
        """Move the points of these samples to the boundary, and then along it."""
        import numpy as np

        self._to_boundary(samples)
        samples = np.intersect1d(samples, self.active())
        if not len(samples):
            return
        direction = self._direction(samples, step)
        distances = self.distances(self.points[samples], samples)
        length = distances / np.sqrt(step)
        moved = np.zeros(len(samples), dtype=bool)
        for _ in range(HALVINGS):
            open_ = np.flatnonzero(~moved & (self.used[samples] < self.attack.queries))
            if not len(open_):
                break
            chosen = samples[open_]
            points = self.points[chosen] + length[open_, None] * direction[open_]
            points = np.clip(points, self.low, self.high)
            wrong = self.wrong(points, chosen)
            self.points[chosen[wrong]] = points[wrong]
            moved[open_[wrong]] = True
            length[open_] /= 2

    def _to_boundary(self, samples: Array) -> None:
        """Move the points as near to their inputs as the same side of the boundary allows."""
        import numpy as np

        far = self.points[samples].copy()
        near, high = np.zeros(len(samples)), self.distances(far, samples)
        for _ in range(HALVINGS):
            middle = (near + high) / 2
            # The distance that is asked for is first of all the one that counts.
            middle = np.where(
                (near < self.attack.epsilon) & (self.attack.epsilon < high),
                self.attack.epsilon,
                middle,
            )
            points = self._toward(far, samples, middle)
            wrong = self.wrong(points, samples)
            high = np.where(wrong, middle, high)
            near = np.where(wrong, near, middle)
            if (high <= self.attack.epsilon).all():
                break
        self.points[samples] = self._toward(far, samples, high)

    def _toward(self, far: Array, samples: Array, distance: Array) -> Array:
        """Return the points at a distance, on the way from the input to the far point."""
        return self.within(far, samples, distance)

    def _direction(self, samples: Array, step: int) -> Array:
        """Estimate the normal of the boundary at each point, from decisions around it."""
        import numpy as np

        left = int((self.attack.queries - self.used[samples]).min()) - HALVINGS
        probes = max(2, min(int(MOST_PROBES * np.sqrt(step)), left))
        width = self.inputs.shape[1]
        noise = self.rng.normal(size=(len(samples), probes, width))
        if self.attack.norm == "inf":
            noise = self.rng.uniform(-1, 1, size=noise.shape)
        noise /= np.sqrt((noise**2).sum(2, keepdims=True))
        distances = self.distances(self.points[samples], samples)
        # As in the paper, but never below what the dtype of the input can show.
        radius = distances / np.sqrt(width) if self.attack.norm == "2" else distances * 0.1
        points = self.points[samples][:, None] + radius[:, None, None] * noise
        points = np.clip(points, self.low, self.high)
        asked = np.repeat(samples, probes)
        wrong = self.wrong(points.reshape(-1, width), asked).reshape(len(samples), probes)
        weight = np.where(wrong, 1.0, -1.0)
        mean = weight.mean(1, keepdims=True)
        # If all decisions agree, their mean says nothing.
        weight = np.where(np.abs(mean) == 1, weight, weight - mean)
        direction = np.einsum("sp,spw->sw", weight, noise)
        if self.attack.norm == "inf":
            return np.asarray(np.sign(direction))
        lengths = np.sqrt((direction**2).sum(1, keepdims=True))
        return np.asarray(direction / np.maximum(lengths, 1e-300))

    def result(self) -> tuple[Array, Array]:
        """Return the points within epsilon, in the shape and dtype of the inputs."""
        import numpy as np

        everyone = np.arange(len(self.inputs))
        points = self.within(self.points, everyone, self.attack.epsilon)
        return points.reshape(self.shape).astype(self.dtype), self.used
