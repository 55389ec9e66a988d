"""Drive one rollout: route requests, call the controller, and let the analysis decide."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Literal

from ...core.clock import VirtualClock
from ...core.rollouts import OPERATIONS, Damage, Operation
from ...core.sites import derive_seed
from ...core.validation import format_value, is_real
from ...engine.controller import Controller
from ...engine.error_origin import describe_swallower
from ...errors import BadArgument, CrashSwallowed, SimulatedCrash
from ...sites.rollouts import METRICS, REGISTRY, operation_site
from .analysis import Comparison
from .metrics import Metrics, Tally, make_metrics
from .options import Options, Traffic
from .records import Answer, Call, Phase, Trace
from .subjects import find_holders
from .versions import Models, worse_value

__all__ = ["RunningRollout"]

TOLERANCE = 1e-6
POOL = 20


class RunningRollout:
    """A rollout that is running: its traffic, its versions, and the controller's calls.

    Args:
        chaos: The controller of the trial.
        subject: The user's controller.
        models: The models by version.
        traffic: The requests.
        options: The options.
        trace: The record of what happens.
        serve: A function that lets the controller itself answer: ``(request, user, version)``.
        routes: True if the controller routes by itself.
        own_registry: True if the controller loads versions itself.
        config: The controller's configuration.
        label: A function that returns the right answer, ``"golden"`` for the old version's, or
            None.
    """

    def __init__(
        self,
        chaos: Controller,
        subject: Any,
        models: Models,
        traffic: Traffic,
        options: Options,
        trace: Trace,
        *,
        serve: Callable[[Any, Any, str], Any] | None,
        routes: bool,
        own_registry: bool,
        config: MutableMapping[str, Any] | None,
        label: Callable[[int, Any], Any] | Literal["golden"] | None,
        score: Callable[[Any, Any], float],
        is_error: Callable[[Any], object],
    ) -> None:
        self.chaos, self.subject, self.models = chaos, subject, models
        self.traffic, self.options, self.trace = traffic, options, trace
        self.old, self.new = trace.old, trace.new
        self.weights: dict[str, float] = {self.old: 1.0}
        self.phase: Phase = "before"
        self.mirrors = False
        self.spare = self.skewed = 0
        self.window: dict[str, Tally] = {}
        self._baseline = Tally()
        self.comparison = Comparison(options)
        self.mistake: BadArgument | None = None
        self.tell: Callable[..., None] | None = None
        """A function that receives each answer."""
        self.on_loop: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None
        self._serve, self._routes = serve, routes
        self._own_registry = own_registry
        self._label, self._score, self._is_error = label, score, is_error
        self._config = config
        self._config_before = copy.deepcopy(dict(config)) if config is not None else {}
        self._drifted: dict[str, Any] = {}
        self._by: Literal["controller", "driver"] = "driver"
        self._methods = {name: getattr(subject, name) for name in OPERATIONS}
        self._start = chaos.clock.now()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._undo: list[Callable[[], None]] = []

    # -- time and loops ----------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Return the seconds since the start."""
        return self.chaos.clock.now() - self._start

    def finish(self, value: Any) -> Any:
        """Return a value, after it was awaited if need be."""
        if not hasattr(type(value), "__await__"):
            return value
        if self._loop is None:
            _refuse_running_loop(value)
            self._loop = asyncio.new_event_loop()
            self.on_loop(self._loop)

        async def awaited() -> Any:
            return await value

        return self._loop.run_until_complete(awaited())

    def _pass_time(self) -> None:
        clock, seconds = self.chaos.clock, 1 / self.options.rate
        if isinstance(clock, VirtualClock) and clock.governs and not clock.members:
            clock.skip(seconds)

    def close(self) -> None:
        """Restore the controller's methods, and close the loop."""
        while self._undo:
            self._undo.pop()()
        loop, self._loop = self._loop, None
        if loop is not None:
            _end_loop(loop)

    # -- traffic -----------------------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Return the number of requests that may still be sent."""
        return self.options.limit + self.spare - len(self.trace.answers)

    def send(self, number: int) -> int:
        """Send requests, and return how many were sent. The metrics start afresh."""
        self._baseline = self.window.get(self.old) or self._baseline
        self.window, self.skewed = {}, 0
        for count in range(number):
            if self.left <= 0:
                return count
            self._send_one()
            self.check()
        return number

    def check(self) -> None:
        """Raise what the controller may have swallowed: a mistake in a call, or a crash."""
        if self.mistake is not None:
            raise self.mistake
        crash = self.chaos.crash
        if crash is not None:
            place = describe_swallower(crash)
            if place is not None:
                raise CrashSwallowed(place)
            raise SimulatedCrash(str(crash))

    def _send_one(self) -> None:
        self._pass_time()
        number = len(self.trace.answers)
        request = self.traffic.request(number)
        user = self.traffic.user(number, request)
        version = self._route(user)
        answer = Answer(number, self.time, user, version, self.phase)
        models = self.models
        models.expect(number, request, user)
        start = self.chaos.clock.now()
        value = None
        try:
            with self.calls_by("controller"):
                value = self._ask(request, user, version)
                answer.failed = bool(self._is_error(value))
        except Exception as error:  # an error is an answer, too
            if isinstance(error, BadArgument):
                raise
            answer.error, answer.failed = error, True
        seconds = self.chaos.clock.now() - start
        self._attribute(answer, value)
        answer.features = models.features_used
        self.skewed += answer.features not in (None, answer.version)
        calls = models.called or [(answer.version or self.old, not answer.failed, seconds)]
        models.called = []
        if not answer.failed:
            answer.wrong = self._wrong(number, request, value)
        limit = self.options.latency
        answer.slow = limit is not None and seconds > limit
        if answer.version == self.old and not answer.failed and len(models.pool) < POOL:
            models.pool.append(value)
        self.trace.answers.append(answer)
        self._note(answer, calls, seconds)
        if self.tell is not None:
            self.tell(answer, request=request, value=value, seconds=seconds)
        if self.mirrors and self.phase == "during":
            self._mirror(number, request)

    def _wrong(self, number: int, request: Any, value: Any) -> float:
        """Return how wrong an answer is, from 0 to 1."""
        if self._label is None:
            return 0.0
        if self._label == "golden":
            return 1 - self._score(value, self.finish(self._ask_for(self.old, request)))
        return 1 - self._score(value, self._label(number, request))

    @property
    def answers_itself(self) -> bool:
        """Return True if the controller answers requests by its own code."""
        return self._serve is not None

    def answer_again(self, number: int) -> Any:
        """Return the answer to a request by its number, which no user sees and nothing counts."""
        request = self.traffic.request(number)
        user = self.traffic.user(number, request)
        self.models.expect(number, request, user)
        return self._ask(request, user, self._route(user))

    @property
    def can_ask(self) -> bool:
        """Return True if the plugin can choose the version that answers."""
        return self._serve is None or not self._routes

    def _ask_for(self, version: str, request: Any) -> Any:
        """Let a version answer that the plugin chooses."""
        if self._serve is None:
            return self.models.ask(version, request)
        return self._serve(request, self.models.user, version)

    def _ask(self, request: Any, user: Any, version: str) -> Any:
        if self._serve is not None:
            return self.finish(self._serve(request, user, version))
        return self.finish(self.models.ask(version, request))

    def _route(self, user: Any) -> str:
        """Return the version for a user: the same one, unless its share changes."""
        share = self.weights.get(self.new, 0.0)
        if share <= 0 or share >= 1:
            return self.new if share >= 1 else self.old
        drawn = derive_seed(self.options.seed, "route", user) / 2**64
        return self.new if drawn < share else self.old

    def _attribute(self, answer: Answer, value: Any) -> None:
        """Find out which version answered."""
        models = self.models
        if models.called:
            answered = [version for version, ok, _ in models.called if ok]
            answer.version = answered[-1] if answered else models.called[-1][0]
            return
        if not self._routes:
            return
        said = _version_of(value, (self.old, self.new))
        if said is not None:
            answer.version = said
        elif 0 < self.weights.get(self.new, 0.0) < 1:
            answer.version = None

    def _note(
        self, answer: Answer, calls: Sequence[tuple[str, bool, float]], seconds: float
    ) -> None:
        """Count an answer in the metrics. Calls that failed behind a fallback count, too."""
        for version, ok, took in calls:
            final = version == answer.version
            failed = not ok or (final and answer.failed)
            wrong = answer.wrong if final and not failed else 0.0
            self._count(version, failed, wrong, seconds if final else took, answer.user)

    def _count(self, version: str, failed: bool, wrong: float, seconds: float, user: Any) -> None:
        limit = self.options.latency
        slow = limit is not None and seconds > limit
        tally = self.window.get(version)
        if tally is None:
            tally = self.window[version] = Tally()
        tally.add(error=failed, wrong=wrong, slow=slow, latency=seconds, user=user)
        self.comparison.add(version == self.new, failed=failed, wrong=wrong, slow=slow)

    def look_again(self, number: int) -> None:
        """Ask the new version more requests, until the default test has a verdict.

        No user sees the answers, and no fault strikes.
        """
        if not self.can_ask or not self.models.known:
            return
        for count in range(number):
            if count % self.options.per_check == 0 and (
                self.comparison.verdict()[0] != "inconclusive"
            ):
                return
            request = self.traffic.request(count)
            self.models.expect(count, request)
            self._measure_unseen(self.old, count, request)
            self._measure_unseen(self.new, count, request)

    def _mirror(self, number: int, request: Any) -> None:
        """Let the new version answer, too, without a user who sees it."""
        if self.can_ask and self.models.is_known(self.new):
            self.trace.mirrored += 1
            self._measure_unseen(self.new, number, request)

    def _measure_unseen(self, version: str, number: int, request: Any) -> None:
        self.models.called = []
        start, failed, wrong = self.chaos.clock.now(), False, 0.0
        try:
            value = self.finish(self._ask_for(version, request))
            failed = bool(self._is_error(value))
            wrong = 0.0 if failed else self._wrong(number, request, value)
        except Exception:  # noqa: BLE001  # an error is an answer, too
            failed = True
        self._count(version, failed, wrong, self.chaos.clock.now() - start, None)

    def metrics(self, **more: Any) -> Metrics:
        """Return the metrics since the last analysis, as faults leave them.

        The old version keeps its last ones while it gets no requests.
        """
        self._baseline = self.window.get(self.old) or self._baseline
        found = make_metrics(
            self.old,
            self.new,
            self.window,
            self._baseline,
            quality=self._label is not None,
            weight=float(self.weights.get(self.new, 0.0)),
            seconds=self.time,
            skewed=self.skewed,
            **more,
        )
        visited: Metrics = self.chaos.visit(METRICS, found)
        return visited

    # -- the controller's calls --------------------------------------------------------------------

    @contextlib.contextmanager
    def calls_by(self, who: Literal["controller", "driver"]) -> Iterator[None]:
        """Count calls of the four methods inside as the controller's own, or as the plugin's."""
        by, self._by = self._by, who
        try:
            yield
        finally:
            self._by = by

    def install(self) -> None:
        """Put a wrapper in place of each of the controller's four methods."""
        held = getattr(self.subject, "__dict__", None)
        if held is None:
            return
        for name in OPERATIONS:
            before = held.get(name, self)
            self._undo.append(functools.partial(_restore, held, name, before, self))
            held[name] = self._wrapper(name)

    def _wrapper(self, name: str) -> Callable[..., Any]:
        real = self._methods[name]
        if inspect.iscoroutinefunction(real):

            @functools.wraps(real)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self._operation(name, args, kwargs) as take:
                    return None if take is None else take(await real(*args, **kwargs))

            return awaited

        @functools.wraps(real)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self._operation(name, args, kwargs) as take:
                return None if take is None else take(real(*args, **kwargs))

        return called

    def call(self, name: str, *args: Any) -> Call:
        """Call one of the controller's methods. An error is noted, unless no fault has struck."""
        function = getattr(self.subject, name)
        if getattr(self.subject, "__dict__", None) is None:
            function = self._wrapper(name)
        before = len(self.trace.calls)
        with self.calls_by("driver"):
            try:
                least = 0 if name in ("promote", "rollback") else len(args)
                self.finish(function(*_accepted(self._methods[name], args, least)))
            except Exception:
                self.check()
                if not self.struck and name != "promote":  # which may refuse
                    raise
        self.check()
        return self.trace.calls[before]

    @property
    def struck(self) -> bool:
        """Return True if a fault has struck in this trial."""
        return bool(self.chaos.journal) or bool(self.models.damages)

    @contextlib.contextmanager
    def _operation(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Iterator[Callable[[Any], Any] | None]:
        """Run one of the four methods inside. Give a function that takes its result.

        Give None if a fault lets the call have no effect.
        """
        weights = self._given_weights(args, kwargs) if name == "split" else {}
        call = Call(name, self.time, len(self.trace.answers), self._by, weights)
        self.trace.calls.append(call)
        operation = Operation(
            name=name,
            old=self.old,
            new=self.new,
            weights=weights,
            watched=self.options.watched,
            has_features=self.models.has_features,
            config=tuple(map(str, self._config or ())),
        )

        def take(value: Any) -> Any:
            call.refused = value is False
            return value

        try:
            with self.calls_by("controller"):  # a method may call the others
                if name == "deploy" and self._own_registry:
                    self.chaos.visit(REGISTRY, args[0] if args else self.new)
                gate = self.chaos.begin(operation_site(name), operation)
                with gate or contextlib.nullcontext():
                    if gate is not None:
                        gate.wait()
                        operation = gate.payload
                    late = self._due(name)
                    if late is not None and late.effect == "raises":
                        raise self._injected(late.error)
                    if late is not None and late.effect == "ignored":
                        self.phase = "after"  # as far as the caller knows
                        yield None
                        return
                    yield take
                    if call.ok:
                        self._took_effect(operation)
                if late is not None and late.effect == "reply_lost":
                    raise self._injected(late.error)
        except Exception as error:
            call.error = error
            raise

    def _injected(self, error: BaseException | None) -> BaseException:
        found = RuntimeError("injected by mlchaos") if error is None else error
        self.chaos.inject(found)
        return found

    def _due(self, name: str) -> Damage | None:
        """Return the damage that this call meets, and remove it."""
        for damage in self.models.damages:
            if damage.on == name and damage.effect != "skew":
                self.models.damages.remove(damage)
                return damage
        return None

    def _given_weights(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, float]:
        given: Any = args[0] if args else next(iter(kwargs.values()), None)
        if is_real(given):
            given = {self.old: 1 - given, self.new: given}
        wrong = ""
        if not isinstance(given, Mapping) or not given:
            wrong = f"must be a dict of versions and shares, got {format_value(given)}"
        else:
            unknown = [name for name in given if name not in (self.old, self.new)]
            total = sum(given.values()) if all(map(is_real, given.values())) else math.nan
            if unknown:
                wrong = (
                    f"name {format_value(unknown[0])}. The versions are {self.old} and {self.new}"
                )
            elif any(not share >= 0 for share in given.values()) or not (
                abs(total - 1) <= TOLERANCE
            ):
                wrong = f"must be shares of 0 or more that sum to 1, got a sum of {total:g}"
        if wrong:
            self.mistake = self.mistake or BadArgument(
                f"mlchaos.rollout: weights of split() {wrong}"
            )
            raise self.mistake
        return dict(given)

    def _took_effect(self, operation: Operation) -> None:
        name, models = operation.name, self.models
        if name == "split":
            self.weights = dict(operation.weights)
            return
        if name in ("promote", "rollback"):
            self.weights = {self.new if name == "promote" else self.old: 1.0}
            self.phase = "after"
            kept = [
                one for one in models.damages if one.effect not in ("partial", "skew") or one.on
            ]
            due = [one for one in kept if one.on == name and one.effect == "skew"]
            models.damages = [one for one in kept if one not in due]
            models.damages += [_now(one) for one in due]
        else:
            self.phase = "during"
            models.damages = []
            models.ready_at = -math.inf
        if name == "deploy":
            self._look_for_models()
        self._check_reach(operation)
        self.trace.damages += operation.damages
        models.damages += operation.damages
        for damage in operation.damages:
            if damage.effect == "not_ready":
                models.ready_at = self.chaos.clock.now() + damage.seconds
            elif damage.effect == "config" and self._config is not None and damage.key is not None:
                self._drift(self._config, damage.key, damage.value)

    def _look_for_models(self) -> None:
        """Watch the models that a deployment has loaded."""
        for holder in find_holders(self.subject, (self.old, self.new)):
            self.models.watch(holder, self.subject)

    def _check_reach(self, operation: Operation) -> None:
        """Raise if a fault cannot take effect, because the models are not known."""
        effects = ("worse", "not_ready", "partial", "skew")
        for damage in operation.damages:
            if damage.effect in effects and not self.models.is_known(self.new):
                self.mistake = BadArgument(
                    f"mlchaos.rollout: {damage.fault} cannot strike, because the controller's models "
                    f"are unknown. Keep them in a dict by version in one of its attributes, or give "
                    f"this dict as versions="
                )
                raise self.mistake

    def _drift(self, config: MutableMapping[str, Any], key: str, value: Any) -> None:
        config[key] = worse_value(config[key], [], 0) if value is None else value
        self._drifted[key] = copy.deepcopy(config[key])

    def find_drift(self, promoted: bool) -> tuple[str, ...]:
        """Return the keys of the configuration that are wrong at the end."""
        if self._config is None:
            return ()
        if promoted:
            return tuple(
                key for key, value in self._drifted.items() if self._config.get(key) == value
            )
        keys = {**self._config_before, **self._config}
        absent = object()
        return tuple(
            str(key)
            for key in keys
            if self._config.get(key, absent) != self._config_before.get(key, absent)
        )


def _refuse_running_loop(value: Any) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if inspect.iscoroutine(value):
        value.close()
    raise BadArgument(
        "mlchaos.rollout runs its own event loop for async controllers, so it needs a plain test: "
        "def test_...(), not async def"
    )


def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that the controller left, and close the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _now(damage: Damage) -> Damage:
    return dataclasses.replace(damage, on="")


def _restore(held: dict[str, Any], name: str, before: Any, absent: object) -> None:
    if before is absent:
        held.pop(name, None)
    else:
        held[name] = before


def _accepted(function: Callable[..., Any], args: tuple[Any, ...], least: int) -> tuple[Any, ...]:
    """Return as many of the arguments as a function takes, the least number first."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return args[:least]
    for count in (least, *range(len(args) + 1)):
        with contextlib.suppress(TypeError):
            signature.bind(*args[:count])
            return args[:count]
    return args


def _version_of(value: Any, names: tuple[str, str]) -> str | None:
    """Return the version that a reply names."""
    if isinstance(value, Mapping):
        found = value.get("version", value.get("model_version"))
    elif isinstance(value, tuple) and value:
        found = next((one for one in value if isinstance(one, str) and one in names), None)
    else:
        found = getattr(value, "version", None)
    return found if isinstance(found, str) and found in names else None
