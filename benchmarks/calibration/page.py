"""Write ``docs/calibration.md`` and its charts from the counts.

``nox -s calibration`` does it, and ``python -m calibration.page`` in the folder ``benchmarks``
without new repetitions. The charts need the extra ``report``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import AREAS, Case, cases
from .counts import (
    CONFIDENCE,
    EXCEPTIONS,
    SHARES,
    TOLERATED,
    WANTED,
    WANTED_CURVE,
    Count,
    Key,
    curve_size,
    find_problem,
    jobs,
    read,
)

__all__ = ["chart_digest", "chart_spec", "make_page", "write_page"]

DOCS = Path(__file__).parents[2] / "docs"
FEWEST_SHOWN = 100
"""A rate of fewer repetitions is not shown, because it says nearly nothing."""
TITLES = {
    "quality": ("Quality", "howto/quality.md"),
    "drift": ("Drift", "howto/drift.md"),
    "fairness": ("Fairness", "howto/fairness.md"),
    "monitoring": ("Monitoring", "howto/monitoring.md"),
    "breaking": ("Breaking points", "howto/breaking_points.md"),
    "privacy": ("Attacks on privacy", "howto/privacy_attacks.md"),
}
WORDS = {
    "normal": "normal",
    "heavy": "heavy-tailed",
    "discrete": "discrete",
    "tied": "tied",
    "skewed": "skewed",
}
INTRODUCTION = f"""# Measured error rates

Generated from `benchmarks/calibration/counts/` by `nox -s calibration`.

Each statistical oracle promises that it raises a false alarm with a probability of at most `alpha` (0.05 without a different choice).
This page shows how often it does so in simulations, and how often it finds an effect of a documented size.

- **False alarms** are measured in the hardest case: the claim of your test is just true, or just false.
  `Inconclusive` is not a false alarm.
  A rate is accepted if its exact upper bound at {100 * CONFIDENCE:g} % is at most {TOLERATED:g} alpha.
- **Power** is the share of simulations in which the oracle finds the documented effect.
  If a power is documented, the exact lower bound at {100 * CONFIDENCE:g} % must reach it.
  What an oracle does not find is `Inconclusive` or passes, as its page says.
- **n** is the number of samples, of each of the two samples if there are two. Methods that are quadratic in n are simulated up to 2,000.

| data | distribution |
|---|---|
| normal | the normal distribution |
| heavy-tailed | Student's t with 3 degrees of freedom |
| discrete | six values, as of a die |
| tied | normal values, of which 40 % are equal |
| skewed | lognormal values, for oracles of means |

For shares and groups, these words stand for rates in the middle and near 0, and for unequal groups.
For breaking points, they stand for subjects that break gradually or suddenly: see `benchmarks/calibration/`.

Add repetitions with `nox -s calibration -- drift --minutes 20`.
A run continues where the last one stopped, and fails if a rate is violated."""


def make_page(counts: Mapping[str, Mapping[Key, Count]]) -> str:
    """Return the text of the page."""
    return "\n".join(_lines(counts)) + "\n"


def _lines(counts: Mapping[str, Mapping[Key, Count]]) -> Iterator[str]:
    yield INTRODUCTION
    yield from ("", "## State", "", *_state(counts))
    for area in AREAS:
        title, link = TITLES[area]
        yield from ("", f"## {title}", "", f"How to use these oracles: [{title}]({link}).")
        found = counts[area]
        if _points(area, found):
            text = f"Power of the oracles of {title.lower()} by the size of the effect"
            yield from ("", f"![{text}](images/power-{area}.svg)", "")
            yield (
                "1 on the horizontal axis is the documented effect. "
                "The data are the first ones of each table."
            )
        for oracle, case in cases(area).items():
            yield from ("", f"### {oracle}", "", *_oracle(oracle, case, found))


def _state(counts: Mapping[str, Mapping[Key, Count]]) -> Iterator[str]:
    keys = [(area, key) for area in AREAS for key in jobs(area) if key.share == 1]
    done = [
        (area, key) for area, key in keys if counts[area].get(key, Count()).repetitions >= WANTED
    ]
    violated = [
        (key, problem)
        for area, key in keys
        if (problem := find_problem(key, counts[area].get(key, Count()), cases(area)[key.oracle]))
    ]
    yield (
        f"{len(done)} of {len(keys)} rates have {WANTED:,} repetitions or more. The others are marked."
    )
    unknown = [one for one in violated if str(one[0]) not in EXCEPTIONS]
    known = [one for one in violated if str(one[0]) in EXCEPTIONS]
    yield f"Violated rates: {len(unknown)}, besides {len(known)} that are known limits."
    if unknown:
        yield from ("", *(_violation(*one) for one in unknown))
    for reason in dict.fromkeys(EXCEPTIONS[str(key)] for key, _ in known):
        yield from ("", f"Known limit: {reason}.", "")
        yield from (_violation(*one) for one in known if EXCEPTIONS[str(one[0])] == reason)


def _violation(key: Key, problem: str) -> str:
    return f"- {key.oracle}, n = {key.n:,}, {WORDS[key.shape]} data: {problem}"


def _oracle(oracle: str, case: Case, found: Mapping[Key, Count]) -> Iterator[str]:
    yield f"- False alarm: {case.alarm}."
    yield f"- Effect: {case.found}."
    if case.power:
        told = ", ".join(f"{power:g} at n = {n:,}" for n, power in sorted(case.power.items()))
        yield f"- Documented power: {told}."
    yield ""
    yield "| n | data | false alarms (at most) | repetitions | power (at least) | repetitions |"
    yield "|---|---|---|---|---|---|"
    for n in case.sizes:
        for shape in case.shapes:
            null, effect = (
                found.get(Key(oracle, kind, n, shape), Count()) for kind in ("null", "effect")
            )
            yield (
                f"| {n:,} | {WORDS[shape]} | {_rate(null, null.high)} | {_repetitions(null)} "
                f"| {_rate(effect, effect.low)} | {_repetitions(effect)} |"
            )


def _rate(count: Count, bound: float) -> str:
    if count.repetitions < FEWEST_SHOWN:
        return "not measured yet"
    return f"{count.rate:.3f} ({bound:.3f})"


def _repetitions(count: Count) -> str:
    if count.repetitions < FEWEST_SHOWN:
        return "too few"
    few = f", fewer than {WANTED:,}" if count.repetitions < WANTED else ""
    return f"{count.repetitions:,}{few}"


# -- curves ----------------------------------------------------------------------------------------


def _points(area: str, found: Mapping[Key, Count]) -> list[dict[str, Any]]:
    points = []
    for oracle, case in cases(area).items():
        n = curve_size(case)
        own = [
            {"oracle": f"{oracle}, n = {n}", "effect": share, "power": round(count.rate, 3)}
            for share in (*SHARES, 1.0)
            for count in [found.get(Key(oracle, "effect", n, case.shapes[0], share), Count())]
            if count.repetitions >= WANTED_CURVE
        ]
        points += own if len(own) == len(SHARES) + 1 else []
    return points


def chart_spec(area: str, found: Mapping[Key, Count]) -> dict[str, Any]:
    """Return the Vega-Lite chart of an area: one small chart for each oracle."""
    grey = "#808080"  # it can be read on white and on black
    axis = {"labelColor": grey, "titleColor": grey, "gridColor": f"{grey}55", "domainColor": grey}
    points = _points(area, found)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": None,
        "data": {"values": points},
        "facet": {
            "field": "oracle",
            "type": "nominal",
            "sort": list(dict.fromkeys(point["oracle"] for point in points)),
            "header": {
                "title": None,
                "labelColor": grey,
                "labelFontSize": 11,
                "labelLimit": 250,
            },
        },
        "columns": 3,
        "spec": {
            "width": 210,
            "height": 90,
            "mark": {"type": "line", "point": True, "color": "#3b82c4"},
            "encoding": {
                "x": {
                    "field": "effect",
                    "type": "quantitative",
                    "scale": {"domain": [0, 1]},
                    "axis": {"title": "effect", "values": [0, *SHARES, 1]},
                },
                "y": {
                    "field": "power",
                    "type": "quantitative",
                    "scale": {"domain": [0, 1]},
                    "axis": {"title": "power", "values": [0, 0.5, 1]},
                },
            },
        },
        "config": {"axis": {**axis, "tickColor": grey}, "view": {"stroke": None}},
    }


def chart_digest(area: str, found: Mapping[Key, Count]) -> str:
    """Return a text that tells if a chart is current. Its bytes depend on the library's version."""
    spec = json.dumps(chart_spec(area, found), sort_keys=True)
    return f"<!-- {hashlib.sha256(spec.encode()).hexdigest()[:16]} -->"


def write_page() -> None:
    """Write the page and its charts."""
    counts = {area: read(area) for area in AREAS}
    (DOCS / "calibration.md").write_text(make_page(counts), encoding="utf-8")
    for area, found in counts.items():
        path, digest = DOCS / "images" / f"power-{area}.svg", chart_digest(area, found)
        if not _points(area, found):
            path.unlink(missing_ok=True)
        elif not path.exists() or digest not in path.read_text(encoding="utf-8"):
            try:
                import vl_convert
            except ImportError:
                print("the charts need vl-convert: python -m pip install 'pytest-mlchaos[report]'")
                return
            spec = chart_spec(area, found)
            svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
            path.write_text(f"{svg}\n{digest}\n", encoding="utf-8")


if __name__ == "__main__":
    write_page()
