"""Define faults of the answers that a service gets: damaged, or half of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.network import NETWORK
from ...core.sites import Key, Visit
from ...core.validation import check_share, format_value
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import describe
from ..data_fault import RESULT
from ..feature_stores import HalfAnswer
from ..network import NetworkFault
from .bodies import WholeBody, rewritten
from .values import ANSWER_KINDS, AnswerKind, NothingToDamage, dumps, malformed

__all__ = ["DependencyPartial", "ResponseCorruption"]
LAYER = "Calls and services"


def _key(fault: Any) -> Key:
    """Count the results of the target, or the requests to dependencies."""
    if fault.target is not None:
        return (RESULT, fault.target)
    key: Key = NETWORK if fault.url is None else (NETWORK, f"url={fault.url}")
    return key


def _check_one(fault: Any) -> None:
    if fault.target is not None and fault.url is not None:
        raise BadArgument(f"{fault.name}: target= and url= exclude each other. Give one of them")


@register
class ResponseCorruption(NetworkFault):
    """An answer is damaged: that of a dependency, of a remote model, or of the app's own model.

    Args:
        target: A function whose results are damaged, ``"app:Model.predict"``. Without it, the
            bodies of answers over HTTP are.
        url: A pattern of addresses, as for ``refused``.
        kind: ``"wrong_type"``: text for a number, or a number for text. ``"nan"``: a number is NaN.
            ``"truncated"``: half of a text, a list, or of the JSON. ``"swapped"``: two fields or two
            items are exchanged. ``"empty"``: nothing is in it. A search tries all.

    Imitates: a model that returns NaN, a server of a different version, a proxy that cuts answers,
    a client that mixes two answers up.

    Fidelity: the status and most headers stay. An answer over HTTP is read to its end before it
    arrives, and then has the right length. A body that is not JSON is cut or emptied only.

    Example: @chaos.response_corruption(target="json:loads", kind="wrong_type", at=0)
    """

    random = True
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ANSWER_KINDS}
    kind: AnswerKind = "wrong_type"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        _check_one(self)
        if self.zone is not None:
            raise BadArgument(f"{self.name}: zone must not be given, got {self.zone!r}. Use url=")

    @property
    def key(self) -> Key:
        """Count the results of the target, or the requests."""
        return _key(self)

    def possible(self, visit: Visit) -> bool:
        """Return True if the result has a part that fits."""
        if self.target is None:
            return True
        try:
            self._damaged(visit.payload, visit.seed)
        except NothingToDamage:
            return False
        return True

    def apply(self, visit: Visit) -> Any:
        """Damage the result, or the body of the answer."""
        if self.target is None:
            seed = visit.seed
            visit.note(kind=self.kind)
            return rewritten(
                self,
                visit,
                "a different body",
                lambda changed: WholeBody(lambda body: self._body(body, seed), changed),
            )
        try:
            damaged = self._damaged(visit.payload, visit.seed)
        except NothingToDamage:
            raise PayloadMismatch(
                f"{self.name}: kind={self.kind!r} needs a part that it fits in what {self.target} "
                f"returns, got {describe(visit.payload)}"
            ) from None
        visit.note(kind=self.kind)
        visit.payload = damaged  # it may be None
        return None

    def _damaged(self, value: Any, seed: int) -> Any:
        if self.kind == "empty" and isinstance(value, (dict, list, str, bytes)) and value:
            return type(value)()
        return malformed(value, self.kind, seed)[0]

    def _body(self, body: bytes, seed: int) -> bytes | None:
        if self.kind == "empty":
            return b""
        if self.kind == "truncated":
            return body[: len(body) // 2]
        try:
            return dumps(self._damaged(json.loads(body), seed))
        except (ValueError, RecursionError, NothingToDamage):
            return None


@register
class DependencyPartial(HalfAnswer):
    """A dependency answers with a part: some rows or some fields are missing, and no error.

    A table, a list, or a reply with a list of records keeps its first rows. Another dict keeps its
    first fields.

    Args:
        target: A function of the dependency, ``"app:store.get"``. Without it, the JSON in answers
            over HTTP is struck.
        url: A pattern of addresses, as for ``refused``.
        keep: The share that arrives. At least one row or field is missing.

    Imitates: a shard or a replica that does not answer in time, a page that is taken for all, a
    feature group that was not materialized.

    Fidelity: the rows or fields are the first ones, in their order. A count elsewhere in the reply
    keeps its value.

    Example: @chaos.dependency_partial(target="json:loads", keep=0.5, at=0)
    """

    site = NETWORK
    url: str | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        _check_one(self)
        if self.url is not None and not is_drawn(self.url) and not self.url.strip():
            raise BadArgument(f"{self.name}: url must not be empty, got {format_value(self.url)}")
        if not is_drawn(self.keep) and self.keep != 0:
            check_share(self.name, "keep", self.keep)

    @property
    def key(self) -> Key:
        """Count the results of the target, or the requests."""
        return _key(self)

    def apply(self, visit: Visit) -> Any:
        """Return a part of the answer."""
        if self.target is None:
            return rewritten(
                self,
                visit,
                "a different body",
                lambda changed: WholeBody(self._body, changed),
            )
        if visit.source is None and _is_record(visit.payload):
            part = self._first_fields(visit.payload)
            visit.note(fields=len(part), of=len(visit.payload))
            return part
        return super().apply(visit)

    def _first_fields(self, record: dict[Any, Any]) -> dict[Any, Any]:
        left = min(len(record) - 1, math.ceil(self.scaled("keep") * len(record)))
        return dict(list(record.items())[:left])

    def _body(self, body: bytes) -> bytes | None:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return None
        part = self._part(value)
        return None if part is None else dumps(part)

    def _part(self, value: Any) -> Any:
        if isinstance(value, list) and value:
            return value[: min(len(value) - 1, round(self.scaled("keep") * len(value)))]
        if not isinstance(value, dict) or not value:
            return None
        if _is_record(value):
            return self._first_fields(value)
        name = next(name for name, one in value.items() if _is_rows(one))
        return {**value, name: self._part(value[name])}


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_record(value: object) -> bool:
    """Return True for a dict of fields. It holds neither rows nor columns."""
    if not isinstance(value, dict) or not value:
        return False
    return not any(map(_is_rows, value.values())) and not all(
        isinstance(one, (list, tuple)) or hasattr(one, "shape") for one in value.values()
    )
