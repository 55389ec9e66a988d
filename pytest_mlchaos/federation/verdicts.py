"""Judge one federation by its global models, its metrics and its clients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.entries import Entry, FederationRound
from ..core.journal import Strike
from ..core.privacy import error_text, labels_text, shows_values
from ..core.results import CallsResult
from ..core.validation import (
    FLAG,
    NUMBER,
    TOLERANCE,
    WHOLE,
    check_arguments,
    format_number,
    is_real,
    optional,
)
from ..errors import (
    BadArgument,
    BrokenModel,
    NonDeterministicSubject,
    NotConverged,
    NotRecovered,
    Unfair,
    Worse,
)
from ..oracles.convergence import assert_converged
from ..oracles.state import first_difference
from .models import describe_damage, distance
from .records import History, RoundRecord

__all__ = ["FederationRun", "Measures"]

SHOWN_CLIENTS = 5


class Measures:
    """The user's functions that measure a model. No fault strikes in them.

    Args:
        model: A function of the global parameters, or None.
        client: A function of the global parameters and the number of a client, or None.
        clients: The number of clients.
        guard: A context in which no fault strikes.
    """

    def __init__(
        self,
        model: Callable[[Any], Any] | None,
        client: Callable[[Any, int], Any] | None,
        clients: int,
        guard: Callable[[], Any],
    ) -> None:
        self.model, self.client, self.clients, self.guard = model, client, clients, guard


class FederationRun(CallsResult):
    """One federation: its rounds, its global model, and the judgements.

    Attributes:
        value: The global model at the end.
        rounds: The rounds, with those that a restart of the server repeated.
        error: The exception with which the server ended the federation, or None.
        faults: The strikes during the federation.
        restarts: The number of restarts of the server.
    """

    def __init__(
        self,
        history: History,
        faults: tuple[Strike, ...],
        golden: Callable[[], FederationRun] | None,
        measures: Measures,
    ) -> None:
        self.value = history.values[-1]
        self.rounds: Sequence[RoundRecord] = tuple(history.rounds)
        self.error = history.error
        self.faults = faults
        self.restarts = history.restarts
        self._history, self._golden, self._measures = history, golden, measures

    def _about(self) -> str:
        ended = "" if self.error is None else f", ended by {type(self.error).__name__}"
        return f"<FederationRun of {len(self.rounds)} rounds, {len(self.faults)} faults{ended}>"

    def _entries(self, number: int, is_virtual: bool) -> Iterator[Entry]:
        for one in self.rounds:
            yield FederationRound(
                result=number,
                number=one.number,
                clients=one.clients,
                answered=tuple(one.answered),
                late=tuple(one.late),
                failed=tuple(one.failed),
                restarted=one.restarted,
            )

    @functools.cached_property
    def golden(self) -> FederationRun:
        """Return the same federation without faults, from the same start."""
        return self if self._golden is None else self._golden()

    @property
    def models(self) -> Sequence[Any]:
        """Return the global model at the start, and after each complete round."""
        return tuple(self._history.values)

    @functools.cached_property
    def metrics(self) -> Sequence[Any]:
        """Return what ``evaluate`` gives for the global model after each complete round."""
        if self._measures.model is None:
            raise BadArgument(
                "a metric of the global model needs evaluate= of mlchaos.federation, a function of "
                "the parameters"
            )
        evaluate = self._measures.model
        return tuple(self._measured(place, evaluate) for place in range(1, len(self.models)))

    @property
    def distance(self) -> float:
        """Return the distance of the global model from the golden one.

        It is a share of the way that training took without faults: 0 for the same model, and 1 for
        one that is as far away as the first model.
        """
        golden = self.golden._history.models
        way = distance(golden[-1], golden[0])
        if not way > 0:
            raise BadArgument(
                "the distance from the golden run needs training that changes the global model, "
                "and that of the golden run does not"
            )
        return distance(self._history.models[-1], golden[-1]) / way

    # -- judgements --------------------------------------------------------------------------------

    def assert_intact(self) -> None:
        """Raise ``BrokenModel`` if a global model was damaged, and no error said so.

        After each round, the model must have the names and shapes of the first one, and hold
        neither NaN nor infinity. A server that raised an error before passes, because its operator
        knows.

        Raises:
            BrokenModel: A model is empty, has other names or shapes, or is not finite.
            BadArgument: The golden run has the same damage.
        """
        self._compare_under_faults("assert_intact")
        first = self._history.models[0]
        for place, model in enumerate(self._history.models[1:], 1):
            damage = describe_damage(model, first)
            if damage is None:
                continue
            usual = self.golden._history.models
            if place < len(usual) and describe_damage(usual[place], first) is not None:
                raise BadArgument(
                    f"assert_intact: without faults, the global model after round {place - 1} is "
                    f"damaged, too: it {damage}"
                )
            raise BrokenModel(
                f"the global model after round {place - 1} {damage}. No error said so\n{self.story()}"
            )

    @check_arguments("assert_recovered", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_recovered(self, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raise ``NotRecovered`` unless the global model is that of the golden run.

        Use it for faults that a sound server undoes: a duplicate, a late update that it rejects, a
        restart. If a client is lost, a sound model differs: call ``assert_converged``.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.

        Raises:
            NotRecovered: The models differ, or the server ended the federation with an error.
            NonDeterministicSubject: Two golden runs differ.
        """
        self._compare_under_faults("assert_recovered")
        self._check_ended(NotRecovered)
        self._check_golden("assert_recovered")
        difference = self._difference(self.golden, rtol, atol)
        if difference is None:
            return
        self._check_noise(lambda second: second._difference(self.golden, rtol, atol))
        raise NotRecovered(
            f"the global model is not that of the golden run\n  {difference}\n{self.story()}"
        )

    @check_arguments(
        "assert_converged", below=optional(NUMBER), within=optional(TOLERANCE), by=optional(WHOLE)
    )
    def assert_converged(
        self,
        *,
        below: float | None = None,
        within: float | None = None,
        by: int | None = None,
        key: str | None = None,
    ) -> None:
        """Raise ``NotConverged`` unless the global model is as good as the test asks.

        Give ``below``, ``within`` or both.

        Args:
            below: The bound of the loss, which ``evaluate=`` of ``mlchaos.federation`` measures
                after each round. All losses must be finite.
            within: The largest ``distance`` from the golden model: 0.1 for a tenth of the way that
                training took without faults. It needs no metric.
            by: The round by which the loss must be below the bound. Without it, the last one.
            key: The entry of a metric that is a dict. Without it, ``"loss"``.

        Raises:
            NotConverged: The model is not good enough, or the server ended the federation with an
                error.
            NonDeterministicSubject: Two golden runs differ by as much.
        """
        if below is None and within is None:
            raise BadArgument("assert_converged: give below= (a loss) or within= (a distance)")
        self._check_ended(NotConverged)
        if below is not None:
            losses = [self._value(one, key, "assert_converged") for one in self.metrics]
            try:
                assert_converged(losses, below=below, by=by)
            except NotConverged as error:
                raise NotConverged(f"{error}\n{self.story()}") from None
        if within is None:
            return
        self._compare_under_faults("assert_converged")
        self._check_golden("assert_converged")
        found = self.distance
        if found <= within:
            return
        self._check_noise(lambda second: second.distance > within)
        raise NotConverged(
            f"the global model is {_share(found)} of the way of training away from that of the "
            f"golden run, expected at most {_share(within)}\n{self.story()}"
        )

    @check_arguments("assert_not_worse", margin=TOLERANCE, higher_is_better=FLAG)
    def assert_not_worse(
        self, *, margin: float, higher_is_better: bool = False, key: str | None = None
    ) -> None:
        """Raise ``Worse`` if the metric at the end is worse than that of the golden run.

        Args:
            margin: The difference that would not matter, in the unit of the metric.
            higher_is_better: True for an accuracy, False for losses and errors.
            key: The entry of a metric that is a dict. Without it, ``"loss"``.

        Raises:
            Worse: It is worse by more than the margin, or not finite, or the server ended the
                federation with an error.
            NonDeterministicSubject: Two golden runs differ by as much.

        Fidelity: one pair of runs with the same seeds. For several seeds, use the function
        ``assert_not_worse``.
        """
        self._compare_under_faults("assert_not_worse")
        self._check_ended(Worse)
        self._check_golden("assert_not_worse")
        sign = 1 if higher_is_better else -1
        usual = self._last_metric(self.golden, key)
        found = self._last_metric(self, key)
        if sign * (usual - found) <= margin:
            return
        self._check_noise(lambda second: abs(self._last_metric(second, key) - usual) > margin)
        raise Worse(
            f"the metric of the global model is {_comparison(found, usual)}, worse by more than "
            f"the margin of {margin:g}\n{self.story()}"
        )

    @check_arguments("assert_fair_between_clients", margin=TOLERANCE, higher_is_better=FLAG)
    def assert_fair_between_clients(
        self, *, margin: float, higher_is_better: bool = False, key: str | None = None
    ) -> None:
        """Raise ``Unfair`` if a client is served worse than in the golden run.

        The metric of each client is that of the global model at the end on its data, by
        ``evaluate_client=`` of ``mlchaos.federation``. An average over all clients would hide one
        that lost.

        Args:
            margin: The difference that would not matter, in the unit of the metric.
            higher_is_better: True for an accuracy, False for losses and errors.
            key: The entry of a metric that is a dict. Without it, ``"loss"``.

        Raises:
            Unfair: A client is worse by more than the margin, or the server ended the federation
                with an error.
            NonDeterministicSubject: Two golden runs differ by as much.
        """
        self._compare_under_faults("assert_fair_between_clients")
        self._check_ended(Unfair)
        self._check_golden("assert_fair_between_clients")
        sign = 1 if higher_is_better else -1
        usual, found = self.golden._client_metrics(key), self._client_metrics(key)
        # Not ">", because NaN must count as worse.
        worse = [
            client
            for client, before in enumerate(usual)
            if not sign * (before - found[client]) <= margin
        ]
        if not worse:
            return
        self._check_noise(
            lambda second: any(
                abs(one - two) > margin
                for one, two in zip(second._client_metrics(key), usual, strict=True)
            )
        )
        worse.sort(key=lambda client: sign * (usual[client] - found[client]), reverse=True)
        shown = ", ".join(
            f"client {client} ({_comparison(found[client], usual[client])})"
            for client in worse[:SHOWN_CLIENTS]
        )
        rest = f" and {len(worse) - SHOWN_CLIENTS} more" if len(worse) > SHOWN_CLIENTS else ""
        raise Unfair(
            f"{len(worse)} of {len(usual)} clients are served worse than in the golden run, by "
            f"more than {margin:g}: {shown}{rest}\n{self.story()}"
        )

    def story(self) -> str:
        """Return what happened to the clients in each round that a fault struck."""
        lines = []
        for one in self.rounds:
            parts = [f"{names} struck {who}" for names, who in _strikes(one)]
            parts += [f"client {client} failed with {text}" for client, text in one.failed.items()]
            parts += [f"an old update of client {client} arrived" for client in one.late]
            if one.restarted:
                parts.append("the server restarted")
            if parts:
                answered = f"{len(one.answered)} updates from {len(one.clients)} clients"
                lines.append(f"  round {one.number}: {', '.join(parts)}; {answered}")
        return "\n".join(lines) or "  no fault struck"

    # -- the parts ---------------------------------------------------------------------------------

    def _check_ended(self, verdict: type[Exception]) -> None:
        """Raise if the server ended the federation with an error."""
        if self.error is None:
            return
        raise verdict(
            f"the server ended the federation with {error_text(self.error)} in round "
            f"{self.rounds[-1].number}\n{self.story()}"
        ) from self.error

    def _check_golden(self, judgement: str) -> None:
        """Refuse a golden run that is damaged itself. Two models of NaN are equal."""
        models = self.golden._history.models
        if (damage := describe_damage(models[-1], models[0])) is not None:
            raise BadArgument(
                f"{judgement}: without faults, the global model at the end is damaged, too: it "
                f"{damage}"
            )

    def _difference(self, golden: FederationRun, rtol: float, atol: float) -> str | None:
        ours, theirs = self._history.models[-1], golden._history.models[-1]
        return first_difference(ours, theirs, rtol=rtol, atol=atol, name="global model")

    def _check_noise(self, differs: Callable[[FederationRun], object]) -> None:
        """Raise ``NonDeterministicSubject`` if a second golden run differs from the first."""
        second = FederationRun(
            (self._golden or (lambda: self))()._history, (), lambda: self.golden, self._measures
        )
        if differs(second):
            raise NonDeterministicSubject(
                "two federations without faults end in global models that differ by as much. Fix "
                "the seeds of clients and server, or allow for a larger difference"
            )

    def _measured(self, place: int, evaluate: Callable[[Any], Any]) -> Any:
        """Return the metric of a model. That of a damaged model may be impossible to compute."""
        with self._measures.guard():
            try:
                return evaluate(self.models[place])
            except Exception:
                models = self._history.models
                if describe_damage(models[place], models[0]) is None:
                    raise
                return math.nan

    def _client_metrics(self, key: str | None) -> list[float]:
        evaluate = self._measures.client
        if evaluate is None:
            raise BadArgument(
                "assert_fair_between_clients needs evaluate_client= of mlchaos.federation, a "
                "function of the parameters and the number of a client"
            )
        last = len(self.models) - 1
        return [
            self._value(
                self._measured(last, lambda value, client=client: evaluate(value, client)),  # type: ignore[misc]
                key,
                "assert_fair_between_clients",
            )
            for client in range(self._measures.clients)
        ]

    @staticmethod
    def _last_metric(run: FederationRun, key: str | None) -> float:
        return run._value(run.metrics[-1], key, "assert_not_worse")

    @staticmethod
    def _value(metric: Any, key: str | None, judgement: str) -> float:
        """Return a metric as a number."""
        if isinstance(metric, Mapping):
            name = "loss" if key is None and len(metric) != 1 else key or next(iter(metric))
            if name not in metric:
                raise BadArgument(
                    f"{judgement}: key must be an entry of the metric, which has "
                    f"{labels_text(metric)}, got {name!r}"
                )
            metric = metric[name]
        try:
            return float(metric)
        except (TypeError, ValueError):
            raise BadArgument(
                f"{judgement}: the metric must be a number or a dict of numbers, got "
                f"{type(metric).__name__}"
            ) from None


def _strikes(record: RoundRecord) -> Iterator[tuple[str, str]]:
    """Yield the faults that struck the same clients, and these clients, in words."""
    clients: dict[str, list[int]] = {}
    for client, names in record.struck.items():
        clients.setdefault(" and ".join(names), []).append(client)
    for names_text, found in clients.items():
        if len(found) == len(record.clients) > 1:
            yield names_text, f"all {len(found)} clients"
        elif len(found) > SHOWN_CLIENTS:
            yield names_text, f"{len(found)} clients"
        else:
            yield names_text, f"client {' and '.join(map(str, found))}"


def _share(value: float) -> str:
    return "an unknown share" if math.isnan(value) else f"{100 * value:.3g} %"


def _comparison(found: float, usual: float) -> str:
    """Return how a metric differs from that of the golden run."""
    if not is_real(found):
        return "NaN or infinite"
    if shows_values():
        return f"{format_number(found, usual)} instead of {format_number(usual, found)}"
    scale = abs(usual) or abs(found)
    return (
        f"{100 * abs(found - usual) / scale:.3g} % {'above' if found > usual else 'below'} that of "
        f"the golden run"
    )
