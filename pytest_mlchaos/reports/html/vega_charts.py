"""Draw loss curves and latencies as SVG with Vega-Lite, by the library vl-convert.

Only numbers and constant texts get into a chart.
Colours are CSS variables, so that the page's theme decides them.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core.entries import Curve, Requests
from .figures import request_kinds
from .limits import latency_bounds

__all__ = ["latency_chart", "loss_chart"]

WIDTH, HEIGHT = 460, 190
LEFT, BOTTOM = 46, 38
MOST_POINTS = 240
BOLT = "M.3,-1.3L-.8,.2H-.1L-.3,1.3L.8,-.25H.12Z"
CROSS = "M-.8,-.8L.8,.8M.8,-.8L-.8,.8"
_Y_TITLE = {
    "titleAngle": 0,
    "titleAlign": "left",
    "titleX": 8 - LEFT,
    "titleY": -10,
    "ticks": False,
}
"""Above the axis, so that it is read without turning the head."""
_REPLACED = (
    (
        re.compile(r' (?:aria-hidden="true"|pointer-events="none"|opacity="1"|stroke-opacity="1")'),
        "",
    ),
    (re.compile(r' (?:aria-roledescription|aria-label|role)="[^"]*"'), ""),
    (re.compile(r'<path class="(?:fore|back)ground"[^>]*/>'), ""),
    (re.compile(r' class="[^"]*"'), ""),
    (re.compile(r"<g/>|<g></g>"), ""),
    (re.compile(r"(\d+\.\d)\d{1,14}"), r"\1"),
    (
        re.compile(r'^<svg[^>]*viewBox="([^"]*)">'),
        r'<svg class="chart" viewBox="\1" aria-hidden="true">',
    ),
)
"""Parts of a chart that a page does not need, with their replacements."""


def loss_chart(golden: Curve | None, run: Curve | None) -> str:
    """Return the losses of a run and of the golden run, by backward pass."""
    series = (("golden", golden), ("run", run))
    rows = [
        {"x": x, "y": y, "of": name}
        for name, curve in series
        if curve is not None
        for x, y in _thin(curve.values)
    ]
    first = next(
        (curve.values[0] for _, curve in series if curve is not None and curve.values), None
    )
    title = "loss, relative to the first" if first == 1 else "loss"
    restarts = [] if run is None else _restarts(run)
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{"x": x} for x in restarts]},
            "mark": {"type": "rule", "strokeDash": [3, 3], "color": "var(--strike)", "aria": False},
            "encoding": {"x": {"field": "x", "type": "quantitative"}},
        },
        {
            "data": {"values": rows},
            "mark": {"type": "line", "aria": False, "strokeJoin": "round"},
            "encoding": {
                "x": _axis("x", "backward pass"),
                "y": _axis("y", title, zero=False),
                "color": _colours(golden="var(--golden)", run="var(--run)"),
                # The golden run is a broad pale line below, so that it shows where both agree.
                "strokeWidth": _scaled([5, 1.5]),
                "opacity": _scaled([0.35, 1]),
            },
        },
    ]
    return _draw(layers)


def latency_chart(requests: Requests, limits: Mapping[str, object]) -> str:
    """Return the latency of each request by its arrival, with the bounds of the SLO."""
    failed = request_kinds(requests)
    struck = set(requests.struck)
    rows: list[dict[str, Any]] = [
        {
            "x": start,
            "y": latency * 1000,
            "of": "failed"
            if failed[number] == "failed"
            else "struck"
            if number in struck
            else "fine",
        }
        for number, (start, latency) in enumerate(
            zip(requests.starts, requests.latencies, strict=False)
        )
    ]
    kept = [row for row in rows if row["of"] != "fine"]
    fine = [row for row in rows if row["of"] == "fine"]
    rows = _every(kept, 2 * MOST_POINTS) + _every(fine, MOST_POINTS // 2)
    highest = max((row["y"] for row in rows), default=0.0)
    middle = sorted(row["y"] for row in rows)[len(rows) // 2] if rows else 0.0
    wide = highest > 50 * max(middle, 1.0)
    scale = {"type": "symlog"} if wide else {}
    bounds = [
        {"y": seconds * 1000, "text": name} for name, seconds in latency_bounds(limits).items()
    ]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": sorted(rows, key=lambda row: (row["of"] != "fine", row["x"]))},
            "mark": {"type": "point", "size": 26, "strokeWidth": 1.4, "aria": False},
            "encoding": {
                "x": _axis("x", "arrival, seconds"),
                "y": _axis("y", "latency, ms", **scale),
                "color": _colours(
                    fine="var(--quiet)", struck="var(--strike)", failed="var(--failed)"
                ),
                "shape": {
                    "field": "of",
                    "type": "nominal",
                    "legend": None,
                    "scale": {
                        "domain": ["fine", "struck", "failed"],
                        "range": ["circle", BOLT, CROSS],
                    },
                },
            },
        },
        {
            "data": {"values": bounds},
            "mark": {"type": "rule", "color": "var(--ink)", "strokeDash": [6, 3], "aria": False},
            "encoding": {"y": {"field": "y", "type": "quantitative"}},
        },
        {
            "data": {"values": bounds},
            "mark": {
                "type": "text",
                "align": "right",
                "dy": -6,
                "color": "var(--ink)",
                "aria": False,
            },
            "encoding": {
                "x": {"value": WIDTH},
                "y": {"field": "y", "type": "quantitative"},
                "text": {"field": "text", "type": "nominal"},
            },
        },
    ]
    return _draw(layers)


def _restarts(run: Curve) -> list[int]:
    ends, end = [], 0
    for count in run.attempts[:-1]:
        end += count
        ends.append(end)
    return ends


def _thin(values: Sequence[float | None]) -> Iterator[tuple[int, float | None]]:
    """Yield the values with their numbers. Of many, the lowest and highest of each stretch."""
    size = max(1, math.ceil(len(values) / (MOST_POINTS / 2)))
    if size <= 2:
        yield from enumerate(values)
        return
    for start in range(0, len(values), size):
        stretch = [(x, values[x]) for x in range(start, min(start + size, len(values)))]
        known = [(y, x) for x, y in stretch if y is not None]
        if len(known) < len(stretch):
            yield next((x, y) for x, y in stretch if y is None)
        if known:
            yield from sorted({(x, y) for y, x in (min(known), max(known))})


def _every(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return at most this number of rows, evenly chosen, with the largest."""
    if len(rows) <= most:
        return rows
    size = math.ceil(len(rows) / most)
    return [
        max(rows[start : start + size], key=lambda row: row["y"])
        for start in range(0, len(rows), size)
    ]


def _axis(field: str, title: str, **scale: object) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"nice": field == "y", **scale},
        "axis": {"title": title, "tickCount": 5, "grid": field == "y", "domain": field == "x"}
        | (_Y_TITLE if field == "y" else {}),
    }


def _scaled(values: list[float]) -> dict[str, Any]:
    domain = ["golden", "run"]
    return {
        "field": "of",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": domain, "range": values},
    }


def _colours(**colours: str) -> dict[str, Any]:
    return {
        "field": "of",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(colours), "range": list(colours.values())},
    }


def _draw(layers: list[dict[str, Any]]) -> str:
    shown = [layer for layer in layers if layer["data"]["values"]]
    return _svg(json.dumps(shown, sort_keys=True)) if shown else ""


@functools.lru_cache(maxsize=256)
def _svg(layers: str) -> str:
    import vl_convert

    label = {"labelColor": "currentColor", "titleColor": "currentColor"}
    spec: dict[str, Any] = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": WIDTH,
        "height": HEIGHT,
        "background": None,
        # Fixed margins: those that the library computes depend on the fonts of the machine.
        "padding": {"left": LEFT, "right": 10, "top": 26, "bottom": BOTTOM},
        "autosize": "none",
        "layer": json.loads(layers),
        "config": {
            "font": "inherit",
            "view": {"stroke": None},
            "axis": {
                **label,
                "labelFontSize": 11.5,
                "titleFontSize": 11.5,
                "titleFontWeight": "normal",
                "gridColor": "var(--rule)",
                "domainColor": "var(--rule-strong)",
                "tickColor": "var(--rule-strong)",
                "tickSize": 4,
                "aria": False,
            },
            "text": {"fontSize": 11.5},
        },
    }
    text: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    for pattern, new in _REPLACED:
        text = pattern.sub(new, text)
    return text
