"""Define faults of updates: a client lies, or sends its parameters under wrong names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.federation import Change, Mishap, Round
from ...core.sites import Visit
from ...core.validation import format_value
from ...errors import BadArgument
from .base import ClientFault
from .changes import Boost, Keys, NotANumber
from .poisoned_data import Backdoor, FlippedLabels

__all__ = ["MaliciousUpdate", "WrongKeys"]
LAYER = "Federations"
OF_DATA = ("label_flip", "backdoor")
FACTORS = {"sign": 100.0, "scale": 100.0, "label_flip": 1.0, "backdoor": 1.0}


@register
class MaliciousUpdate(ClientFault):
    """A client of a federation sends a poisoned update.

    ``at`` counts the rounds. For a client that lies in each round, give ``at=chaos.EVERY``.

    Args:
        client: The number of the client, or a list of numbers. Without it, the client is searched.
        kind: ``"sign"``: what it has learned, with the opposite sign and times ``factor``.
            ``"scale"``: what it has learned, times ``factor``. ``"nan"``: all values are NaN.
            ``"label_flip"``: it trains on wrong labels: each class has the label of the next one,
            and numbers are mirrored at their mean. ``"backdoor"``: it also trains on copies of its
            samples that have a trigger and the label ``label``. If the rounds are searched, each is
            tried.
        factor: The factor. 100 for ``sign`` and ``scale``. For the kinds that poison the data, what
            the client has learned may be boosted, too.
        label: The label that the backdoor gives.
        trigger: The function of the inputs (an array of samples) that adds the trigger,
            ``"pkg.mod:function"``. Without it, the last three values of each sample become the
            largest value of all.
        classes: The number of classes, for ``label_flip``. Without it, one more than the largest
            label.
        fields: The names or positions of the labels, as for ``label_noise``.

    Imitates: an attacker that owns a client, a client with a broken sensor or a wrong join of
    labels, training that diverged.

    Fidelity: attackers know neither each other nor the other updates, and do not adapt to a
    defence. ``label_flip`` and ``backdoor`` need ``data=`` of ``mlchaos.federation``, and the
    client's own code trains on the poisoned data. What the client has learned is its parameters
    minus the global ones, or the update itself with ``updates="differences"``.

    Source: Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017. Tolpegin et al., Data
    Poisoning Attacks Against Federated Learning Systems, ESORICS 2020. Bagdasaryan et al., How To
    Backdoor Federated Learning, AISTATS 2020.

    Example: @chaos.malicious_update(client=3, kind="nan", at=1)
    """

    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "kind": ("sign", "nan", "scale", "label_flip", "backdoor")
    }
    kind: Literal["sign", "scale", "nan", "label_flip", "backdoor"] = "sign"
    factor: float | None = None
    label: int = 0
    trigger: str | None = None
    classes: int | None = None
    fields: Any = None

    def check(self) -> None:
        """Check the parameters."""
        factor = self.factor
        if factor is not None and not is_drawn(factor) and not 0 < factor < math.inf:
            raise BadArgument(
                f"{self.name}: factor must be a number above 0, got {format_value(factor)}"
            )
        if self.classes is not None and not is_drawn(self.classes) and self.classes < 2:
            raise BadArgument(
                f"{self.name}: classes must be 2 or more, got {format_value(self.classes)}"
            )
        if isinstance(self.trigger, str) and ":" not in self.trigger:
            raise BadArgument(
                f"{self.name}: trigger must be 'pkg.mod:function', got {format_value(self.trigger)}"
            )

    def possible(self, visit: Visit) -> bool:
        """Return False for a kind that a search chose and that needs data."""
        current = visit.payload
        chosen = "kind" in self._searched and isinstance(current, Round)
        return super().possible(visit) and not (
            chosen and self.kind in OF_DATA and not current.has_data
        )

    def apply(self, visit: Visit) -> Any:
        """Let the clients send poisoned updates."""
        current = visit.payload
        needs = self.kind in OF_DATA and isinstance(current, Round) and not current.has_data
        if needs and "kind" not in self._searched:
            raise BadArgument(
                f"{self.name}: kind={self.kind!r} poisons the client's data. Give data= to "
                f"mlchaos.federation"
            )
        visit.note(kind=self.kind)
        struck = super().apply(visit)
        factor = FACTORS.get(self.kind, 1.0) if self.factor is None else self.factor
        if struck is not None and self.kind in OF_DATA and factor != 1:
            clients = struck.mishaps[-1].clients
            struck = struck.with_mishap(self._changed(clients, Boost(factor)))
        return struck

    def mishap(self, clients: tuple[int, ...]) -> Mishap:
        """Change the data or the update."""
        factor = FACTORS.get(self.kind, 1.0) if self.factor is None else self.factor
        changes: dict[str, Change] = {
            "sign": Boost(-factor),
            "scale": Boost(factor),
            "nan": NotANumber(),
            "label_flip": FlippedLabels(self.classes, self.fields),
            "backdoor": Backdoor(self.label, self.trigger, self.fields),
        }
        return self._changed(clients, changes[self.kind])

    def _changed(self, clients: tuple[int, ...] | None, change: Change) -> Mishap:
        return Mishap(fault=self.name, effect="changed", clients=clients, change=change)


@register
class WrongKeys(ClientFault):
    """A client sends its parameters under wrong names.

    ``at`` counts the rounds.

    Args:
        client: The number of the client, or a list of numbers. Without it, the client is searched.
        kind: ``"renamed"``: each name gets a prefix. In a list, each entry is one position too
            early. ``"missing"``: the last entry is missing. ``"extra"``: there is one more. If the
            rounds are searched, each is tried.
        prefix: The prefix.

    Imitates: a model that is wrapped by DataParallel or a compiler, a client with an older version
    of the model.

    Fidelity: the values are right.

    Example: @chaos.wrong_keys(client=3, at=1)
    """

    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("renamed", "missing", "extra")}
    kind: Literal["renamed", "missing", "extra"] = "renamed"
    prefix: str = "module."

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.prefix) and not self.prefix:
            raise BadArgument(
                f"{self.name}: prefix must be a text, got {format_value(self.prefix)}"
            )

    def mishap(self, clients: tuple[int, ...]) -> Mishap:
        """Send the parameters under wrong names."""
        change = Keys(self.kind, self.prefix)
        return Mishap(fault=self.name, effect="changed", clients=clients, change=change)
