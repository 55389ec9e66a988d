"""Read a schema: examples, types, models of pydantic, and tables of pandas."""

from __future__ import annotations

import datetime
import enum
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.validation import format_value
from ...errors import BadArgument
from .values import edges_of, is_same

__all__ = ["Field", "fields_of_model", "fields_of_records", "is_model", "of_value"]

_EXAMPLES: Mapping[type, Any] = {
    bool: True,
    int: 1,
    float: 0.5,
    str: "text",
    bytes: b"bytes",
    datetime.datetime: datetime.datetime(2024, 1, 1),
    datetime.date: datetime.date(2024, 1, 1),
    list: [0.5],
}
Field = tuple[list[Any], list[Any]]
"""The usual values of a field, and its edge cases."""


def of_value(value: Any) -> Field:
    """Return the field of a single example or of a type."""
    if isinstance(value, type):
        if issubclass(value, enum.Enum):
            return [next(iter(value))], edges_of(list(value))
        if value not in _EXAMPLES:
            known = ", ".join(kind.__name__ for kind in _EXAMPLES)
            raise BadArgument(
                f"chaos.edge_cases: a type must be one of {known}, an Enum or a model of pydantic, "
                f"got {format_value(value)}"
            )
        value = _EXAMPLES[value]
    return _field([value])


def _field(examples: list[Any]) -> Field:
    # A single number of NumPy, as a number of Python.
    examples = [one.item() if getattr(one, "ndim", None) == 0 else one for one in examples]
    usual = [one for one in examples if one is not None] or [None]
    edges = [edge for edge in edges_of(examples) if not any(is_same(edge, one) for one in usual)]
    if all(isinstance(one, Mapping) for one in usual):
        fields = fields_of_records(usual)
        edges = [
            {},
            *({**usual[0], name: edge} for name, (_, some) in fields.items() for edge in some),
        ]
        edges.append(None)
    elif edges in ([], [None]) and usual[0] is not None:
        raise BadArgument(
            f"chaos.edge_cases: an example must be a number, a text, a truth value, a date, an "
            f"Enum, a list or a dict, got {format_value(usual[0])}"
        )
    return usual, edges


def fields_of_records(records: Sequence[Mapping[Any, Any]]) -> dict[Any, Field]:
    """Return the fields of examples of one record.

    Raises:
        BadArgument: Records are missing, or one has no fields.
    """
    if not records or not all(records):
        raise BadArgument(
            "chaos.edge_cases: records must have at least one field, got an empty one"
        )
    names = dict.fromkeys(name for record in records for name in record)
    found = {}
    for name in names:
        values = [record[name] for record in records if name in record]
        kinds = all(isinstance(one, type) for one in values)
        found[name] = of_value(values[0]) if kinds else _field(values)
    return found


def is_model(schema: object) -> bool:
    """Return True for a class of pydantic."""
    return inspect.isclass(schema) and hasattr(schema, "model_json_schema")


def fields_of_model(model: Any) -> dict[str, Field]:
    """Return the fields of a model of pydantic, with values that JSON can hold.

    Bounds, lengths and lists of allowed values have edge cases at both of their sides.
    """
    schema = model.model_json_schema()
    parts = schema.get("$defs", {})
    fields = {name: _of_json(one, parts) for name, one in schema.get("properties", {}).items()}
    if not fields:
        raise BadArgument(f"chaos.edge_cases: the model {model.__name__} must have fields")
    return fields


def _of_json(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Field:
    """Return the field of a JSON schema."""
    while "$ref" in schema:
        schema = {
            **parts[schema["$ref"].rpartition("/")[2]],
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if options:
        fields = [_of_json(one, parts) for one in options]
        usual = next((some for some, _ in fields if some != [None]), [None])
        return usual, [edge for _, edges in fields for edge in edges]
    if "enum" in schema or "const" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return list(allowed), [one for one in edges_of(allowed) if one not in allowed]
    kind = schema.get("type")
    if kind == "object":
        inner = {name: _of_json(one, parts) for name, one in schema.get("properties", {}).items()}
        whole = {name: usual[0] for name, (usual, _) in inner.items()}
        edges = [{**whole, name: edge} for name, (_, some) in inner.items() for edge in some]
        return [whole], [{}, *edges, None]
    if kind == "array":
        usual, edges = _of_json(schema.get("items", {"type": "number"}), parts)
        least = max(1, schema.get("minItems", 1))
        whole_list = usual[:1] * least
        found = edges_of([whole_list])
        return [whole_list], [*found, *([edge, *whole_list[1:]] for edge in edges)]
    return _of_plain(schema, kind)


def _of_plain(schema: Mapping[str, Any], kind: Any) -> Field:
    """Return the field of a number, a text, a truth value or null, with its bounds."""
    if kind in ("integer", "number"):
        step = 1 if kind == "integer" else None
        bounds = [
            schema[name]
            for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
            if name in schema
        ]
        low = next(
            (schema[n] + (n[0] == "e") for n in ("minimum", "exclusiveMinimum") if n in schema),
            None,
        )
        high = next(
            (schema[n] - (n[0] == "e") for n in ("maximum", "exclusiveMaximum") if n in schema),
            None,
        )
        usual = low if low is not None else high if high is not None else 1
        usual = int(usual) if step else float(usual)
        beside = [
            one + move if step else math.nextafter(one, move * math.inf)
            for one in bounds
            for move in (-1, 1)
        ]
        return [usual], [*bounds, *beside, *_field([usual])[1]]
    if kind == "boolean":
        return [True], [False, None, "true", 1]
    if kind == "null":
        return [None], []
    if kind == "string":
        form = {"date-time": "2024-01-01T00:00:00Z", "date": "2024-01-01"}.get(
            schema.get("format", ""), ""
        )
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        text = form or "text" * (least // 4 + 1)
        text = text if most is None else text[:most]
        lengths = [*([least - 1] if least else []), *([most, most + 1] if most is not None else [])]
        times = (
            [one.isoformat() for one in edges_of([datetime.datetime(2024, 1, 1)]) if one]
            if form
            else []
        )
        return [text], [*("a" * length for length in lengths), *times, *_field([text])[1]]
    return [None], ["text", 0, [], {}]
