"""Define faults of requests: malformed ones, alone or among good ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.faults import Fault, is_drawn, register
from ...core.privacy import path_text
from ...core.sites import CALL, Key, Visit
from ...core.validation import format_value
from ...engine.attribution import in_flight
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import describe
from .values import KINDS, MalformedKind, NothingToDamage, dumps, is_array, malformed

__all__ = ["MalformedRequest", "PoisonedBatch"]
LAYER = "Calls and services"
REQUEST = "serve.request"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _Malformed(Fault):
    """A fault that makes a request malformed."""

    site = REQUEST
    kind: MalformedKind = "missing_field"
    field: str | None = None
    value: Any = None

    @property
    def positions(self) -> Mapping[str, tuple[Any, ...]]:  # type: ignore[override]  # depends on value
        """Return the kinds that a search tries, unless a value is given."""
        return {} if self.value is not None else {"kind": KINDS}

    def check(self) -> None:
        """Refuse parameters that exclude each other."""
        if self.value is not None and (self.kind != "missing_field" or self.field is not None):
            raise BadArgument(
                f"{self.name}: value= replaces the whole body, so kind= and field= must not be "
                f"given too, got value={format_value(self.value)}"
            )
        if self.field is not None and not is_drawn(self.field) and not self.field.strip():
            raise BadArgument(f"{self.name}: field must not be empty, got {self.field!r}")

    def possible(self, visit: Visit) -> bool:
        """Return True if the request has a part that can be damaged."""
        try:
            self._struck(visit)
        except PayloadMismatch:
            return False
        return True

    def apply(self, visit: Visit) -> Any:
        """Return the malformed request."""
        payload, path = self._struck(visit)
        visit.note(**({"value": "given"} if self.value is not None else {"kind": self.kind}))
        if path:
            visit.note(field=path_text(path))
        return payload

    def _struck(self, visit: Visit) -> tuple[Any, tuple[Any, ...]]:
        """Return the malformed payload, and the path of the field. Raise ``PayloadMismatch``."""
        payload = visit.payload
        if not _is_http(payload):
            return self._damaged(payload, visit)
        body = _body_of(payload)
        if body is None:
            return self._with_query(payload, visit)
        if self.value is not None:
            return _with_body(payload, _encoded(self.value)), ()
        damaged, path = self._damaged(_decoded(body), visit)
        fresh = b"" if damaged in ({}, [], "") and not path else _encoded(damaged)
        return _with_body(payload, fresh), path

    def _with_query(self, request: Any, visit: Visit) -> tuple[Any, tuple[Any, ...]]:
        """Damage a parameter of the query."""
        query = {name: _number_in(text) for name, text in request.url.params.multi_items()}
        if not query or self.value is not None or self.kind == "deep":
            raise PayloadMismatch(
                f"{self.name}: the request must have a body or a query that fits, got "
                f"{request.method} without one"
            )
        damaged, path = self._damaged(query, visit)
        texts = {name: _text_of(value) for name, value in damaged.items()}
        return _changed(request, url=request.url.copy_with(params=texts)), path

    def _damaged(self, value: Any, visit: Visit) -> tuple[Any, tuple[Any, ...]]:
        if self.value is not None:
            return self.value, ()
        return _damaged_by(self, value, visit, self.field)


def _damaged_by(
    fault: Any, value: Any, visit: Visit, field: str | None = None
) -> tuple[Any, tuple[Any, ...]]:
    try:
        return malformed(value, fault.kind, visit.seed, field)
    except NothingToDamage:
        what = f"a field {field!r}" if field is not None else "a part"
        raise PayloadMismatch(
            f"{fault.name}: kind={fault.kind!r} needs {what} that it fits, got {describe(value)}"
        ) from None


@register
class MalformedRequest(_Malformed):
    """One request is malformed: its JSON body or query, or the argument of a callable.

    The struck request may be refused. A service must answer all others as before.

    Args:
        kind: ``"missing_field"``: a field is not there, or a vector is too short.
            ``"wrong_type"``: text for a number, or a number for text. ``"nan"``: a number is NaN.
            ``"empty"``: a text, a list or an object is empty, or a number is null. ``"huge"``: a
            number beyond 64 bits, a text of 1 MiB, or a list of 10,000 items. ``"unicode"``: half
            of a surrogate pair and a zero byte in a text. ``"deep"``: 2,000 nested lists. A search
            tries all.
        field: The name of the field. Without it, any that fits.
        value: The whole body or argument, instead of ``kind``: what JSON can hold, or bytes.

    Imitates: a client with a bug, an old client of a new API, a user who probes the limits.

    Fidelity: NaN is written as ``NaN``, as Python's ``json`` does. A body that is not JSON is
    damaged as bytes. Of a request without a body, a parameter of the query is damaged. Without a
    query either, it is not struck. Headers stay, except for the length.

    Source: RFC 8259, sections 6 and 8.2, https://www.rfc-editor.org/rfc/rfc8259

    Example: @chaos.malformed_request(kind="nan", at=0)
    """


@register
class PoisonedBatch(_Malformed):
    """One bad request among good ones: what a dynamic batch does to its batch-mates.

    Without ``target``, a request is malformed, as by ``malformed_request``, but only while others
    are in flight. With ``target``, one item of a batch is damaged on its way into the function.

    Args:
        target: The function that handles a batch, ``"app:Model.predict_batch"``. Its first argument
            that is a list or an array of items is struck. ``at`` then counts its calls.
        item: The number of the item in the batch. Without it, any.
        kind: As for ``malformed_request``. A search tries all.
        field: The name of the field, as for ``malformed_request``.
        value: The whole request or item, instead of ``kind``.

    Imitates: one request with NaN or a wrong type that a batcher puts together with good ones.

    Fidelity: a batch of one item is not struck with ``target``, because nothing shares it. Items
    of your own classes are damaged if they are dataclasses or models of pydantic. A field of these
    that is missing is None.

    Example: @chaos.poisoned_batch(target="json:loads", kind="wrong_type", at=0)
    """

    target: str | None = None
    item: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if self.target is not None and not is_drawn(self.target) and not self.target.strip():
            raise BadArgument(f"{self.name}: target must be 'pkg.mod:function', got ' '")
        if self.item is not None and not is_drawn(self.item):
            if self.target is None:
                raise BadArgument(f"{self.name}: item= needs target=, the function of the batch")
            if self.item < 0:
                raise BadArgument(f"{self.name}: item must be 0 or more, got {self.item}")

    @property
    def key(self) -> Key:
        """Count the requests, or the calls of the target."""
        return self.site if self.target is None else (CALL, self.target)

    def _struck(self, visit: Visit) -> tuple[Any, tuple[Any, ...]]:
        if self.target is not None:
            return self._poisoned(visit)
        if in_flight() < 2:
            raise PayloadMismatch(
                f"{self.name}: other requests must be in flight, got this one alone. Give drive() "
                f"concurrency= or rate="
            )
        return super()._struck(visit)

    def _poisoned(self, visit: Visit) -> tuple[Any, tuple[Any, ...]]:
        """Return the arguments of a call with one item damaged."""
        args, kwargs = visit.payload
        for name, batch in [*enumerate(args), *kwargs.items()]:
            count = _items(batch)
            if count < 2:
                continue
            number = self.item if self.item is not None else visit.seed % count
            if number >= count:
                break
            damaged, path = self._damaged(_item(batch, number), visit)
            fresh = _with_item(self, batch, number, damaged)
            if isinstance(name, int):
                return ((*args[:name], fresh, *args[name + 1 :]), kwargs), (number, *path)
            return (args, {**kwargs, name: fresh}), (number, *path)
        wanted = "two items or more" if self.item is None else f"an item {self.item} among others"
        raise PayloadMismatch(
            f"{self.name}: an argument of {self.target} must hold {wanted}, got "
            f"{', '.join(map(describe, (*args, *kwargs.values()))) or 'no arguments'}"
        )


def _items(batch: Any) -> int:
    """Return the number of items of a batch, or 0 for what is not a batch."""
    if is_array(batch):
        return int(batch.shape[0]) if len(batch.shape) else 0
    return len(batch) if type(batch) in (list, tuple) else 0


def _item(batch: Any, number: int) -> Any:
    found = batch[number]
    # A number of an array, as a number of Python.
    return found.item() if is_array(batch) and len(batch.shape) == 1 else found


def _with_item(fault: PoisonedBatch, batch: Any, number: int, damaged: Any) -> Any:
    """Return a copy of the batch with one item replaced."""
    if not is_array(batch):
        fresh: Sequence[Any] = [*batch[:number], damaged, *batch[number + 1 :]]
        return type(batch)(fresh)
    copied = batch.clone() if hasattr(batch, "clone") else batch.copy()
    try:
        copied[number] = damaged
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise PayloadMismatch(
            f"{fault.name}: kind={fault.kind!r} gives an item that {describe(batch)} cannot hold"
        ) from None
    return copied


def _is_http(payload: object) -> bool:
    return type(payload).__module__.partition(".")[0] == "httpx" and hasattr(payload, "method")


def _body_of(request: Any) -> bytes | None:
    """Return the body of a request, or None if it has none, or one that is not known yet."""
    import httpx

    try:
        body: bytes = request.content
    except httpx.RequestNotRead:
        return None
    return body or None


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else dumps(value)


def _number_in(text: str) -> Any:
    """Return the number that a text is, or the text."""
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def _text_of(value: Any) -> str:
    """Return a value as text of a query, which cannot hold half a surrogate pair."""
    return "" if value is None else str(value).encode("utf-8", "ignore").decode()


def _with_body(request: Any, body: bytes) -> Any:
    """Return a request with a different body."""
    return _changed(request, content=body)


def _changed(request: Any, url: Any = None, content: bytes | None = None) -> Any:
    import httpx

    left_out = (b"content-length", b"transfer-encoding")
    headers = [(name, held) for name, held in request.headers.raw if name.lower() not in left_out]
    return httpx.Request(
        request.method,
        request.url if url is None else url,
        headers=headers,
        content=content,
        extensions=request.extensions,
    )
