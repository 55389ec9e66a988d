"""Define ``collective`` and ``collective.<op>``: the collectives of ``torch.distributed``.

All of them pass the ``c10d`` operators of torch's dispatcher, also those that C++ code starts (DDP's
reducer) and those of other libraries. Python kernels at ``BackendSelect`` make the visits there, and
call the kernels below. A trial without a fault or a log here has none.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.collectives import (
    COLLECTIVE,
    OPERATIONS,
    POINT_TO_POINT,
    REDUCING,
    REDUCING_OPERATIONS,
    CollectiveRecord,
    is_counted,
)
from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.gate import Gate
from ..engine.patching import Patches
from ..errors import PayloadMismatch

__all__ = ["record_collectives"]

_NAMES = {
    "allreduce_": "all_reduce",
    "allreduce_coalesced_": "all_reduce",
    "reduce_": "reduce",
    "reduce_scatter_": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "allgather_": "all_gather",
    "_allgather_base_": "all_gather",
    "allgather_coalesced_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "broadcast_": "broadcast",
    "alltoall_": "all_to_all",
    "alltoall_base_": "all_to_all",
    "gather_": "gather",
    "scatter_": "scatter",
    "barrier": "barrier",
    "monitored_barrier_": "monitored_barrier",
    "send": "send",
    "recv_": "recv",
    "recv_any_source_": "recv",
}
"""The dispatcher's operators, and the names of their operations."""
_BARRIERS = ("barrier", "monitored_barrier")
_PEERS = ("root_rank", "src", "dst")

Launched = Callable[[Any], object]
"""Called with the result of the operator, right after the launch."""
Log = Callable[[CollectiveRecord], Launched | None]
_active: list[_Kernels] = []


def arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Make visits of one more key.

    With the reducing operations, count all others too, so that a report can say what was passed.
    """
    kernels = _kernels_of(controller, patches)
    kernels.watch(key)
    if key == REDUCING:
        for op in OPERATIONS:
            if op not in REDUCING_OPERATIONS:
                kernels.watch(f"{COLLECTIVE}.{op}")


site(
    COLLECTIVE,
    "Any collective or point-to-point operation of torch.distributed, about to be launched. "
    "Payload: the tensors that this rank gives.",
    needs="torch",
)(arm)
for _op in OPERATIONS:
    site(
        f"{COLLECTIVE}.{_op}",
        f"A torch.distributed.{_op}, about to be launched, by Python or C++ code. "
        "Payload: the tensors that this rank gives.",
        needs="torch",
    )(arm)


def record_collectives(controller: Controller, patches: Patches, log: Log) -> None:
    """Call ``log`` with a record of each collective, right before it is launched.

    If it returns a function, that is called with the operator's result (a boxed ``Work``).
    """
    _kernels_of(controller, patches).record(log)


def _kernels_of(controller: Controller, patches: Patches) -> _Kernels:
    if not _active or _active[-1].controller is not controller:
        _active.append(kernels := _Kernels(controller))
        patches.on_undo(kernels.remove)
    return _active[-1]


class _Operator(NamedTuple):
    """One operator of the dispatcher, and the positions of its arguments."""

    name: str
    op: str
    call: Any
    inputs: int
    outputs: int
    group: int
    peer: int | None
    tag: int | None
    waits: int | None
    arguments: tuple[str, ...]
    returns: int

    @classmethod
    def of(cls, name: str) -> _Operator:
        """Find the positions in the operator's schema."""
        import torch

        call = getattr(torch.ops.c10d, name).default
        schema = call._schema
        names = tuple(argument.name for argument in schema.arguments)
        tensors = [
            place
            for place, argument in enumerate(schema.arguments)
            if "Tensor" in str(argument.type) and argument.name != "sparse_indices"
        ]

        def find(*wanted: str) -> int | None:
            return next((place for place, known in enumerate(names) if known in wanted), None)

        return cls(
            name,
            _NAMES[name],
            call,
            tensors[-1],
            tensors[0],
            names.index("process_group"),
            find(*_PEERS),
            find("tag"),
            find("async_op"),
            names,
            len(schema.returns),
        )


class _Group:
    """A process group, and the numbers of its operations in this rank."""

    __slots__ = ("__weakref__", "_numbers", "name", "rank", "ranks")

    def __init__(self, group: Any) -> None:
        import torch.distributed as dist

        try:
            self.ranks = tuple(dist.get_process_group_ranks(group))
        except (KeyError, ValueError, RuntimeError):  # made without torch's registry
            self.ranks = tuple(range(group.size()))
        self.rank: int = self.ranks[group.rank()]
        self.name: str = getattr(group, "group_name", "")
        self._numbers: dict[tuple[object, ...], int] = {}

    def number(self, kind: tuple[object, ...]) -> int:
        """Return the number of the next operation of this kind."""
        return self._numbers.get(kind, 0)

    def count(self, kind: tuple[object, ...]) -> int:
        """Give a number to an operation of this kind. Threads must not share a group."""
        number = self._numbers.get(kind, 0)
        self._numbers[kind] = number + 1
        return number


class _Kernels:
    """The kernels of one trial. They are removed at its end."""

    def __init__(self, controller: Controller) -> None:
        import torch

        self.controller = controller
        self._log: Log | None = None
        self._keys: dict[str, list[Key]] = {op: [] for op in OPERATIONS}
        self._across: list[Key] = []
        self._groups: weakref.WeakKeyDictionary[Any, _Group] = weakref.WeakKeyDictionary()
        self._library: Any = torch.library.Library("c10d", "IMPL")
        self._implemented: set[str] = set()
        self._below = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)
        self._unbox: Callable[[Any], Any] = torch.distributed.ProcessGroup.unbox

    def watch(self, key: Key) -> None:
        """Make visits of one more key."""
        selector = key[1] if isinstance(key, tuple) else ""
        for op in OPERATIONS:
            if selector.startswith("across"):
                self._implement(op)
            elif is_counted(key, op, ()) and key not in self._keys[op]:
                self._keys[op].append(key)
                self._implement(op)
        if selector.startswith("across") and key not in self._across:
            self._across.append(key)

    def record(self, log: Log) -> None:
        """Call ``log`` before each launch."""
        self._log = log
        for op in OPERATIONS:
            self._implement(op)

    def remove(self) -> None:
        """Remove the kernels. The operators are as fast as before."""
        if self in _active:
            _active.remove(self)
        self._library._destroy()

    def _implement(self, op: str) -> None:
        import torch

        for name in _NAMES:
            known = torch._C._dispatch_has_kernel(f"c10d::{name}")
            if _NAMES[name] == op and name not in self._implemented and known:
                self._implemented.add(name)
                kernel = self._kernel(_Operator.of(name))
                with warnings.catch_warnings():
                    # Torch warns that its own kernel is replaced, which is meant.
                    warnings.filterwarnings("ignore", "Warning only once for all operators")
                    self._library.impl(name, kernel, "BackendSelect", with_keyset=True)

    def _kernel(self, operator: _Operator) -> Callable[..., Any]:
        keys, across, below = self._keys[operator.op], self._across, self._below
        redispatch = operator.call.redispatch
        begin = self.controller.begin

        def kernel(keyset: Any, *args: Any, **keywords: Any) -> Any:
            if keywords:
                args = _positional(operator, args, keywords)
            call = _Call(self, operator, keyset & below, args)
            counted = keys
            if across:
                counted = [*keys, *(key for key in across if call.is_counted(key))]
            gates = None
            for key in counted:
                # The operation has the payload, which is read only if a fault is due.
                gate = begin(key, None, call, call)
                if gate is not None:
                    gates = [gate] if gates is None else [*gates, gate]
            if gates is not None:
                return call.disturbed(gates)
            launched = self.launched(call)
            result = redispatch(call.keyset, *args)
            if launched is not None:
                launched(result)
            return result

        return kernel

    def group_of(self, boxed: Any) -> _Group:
        """Return what is known about a process group."""
        group = self._unbox(boxed)
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = _Group(group)
        return found

    def launched(self, call: _Call) -> Launched | None:
        """Count and log an operation that is about to be launched."""
        number = call.group.count(call.kind)
        if self._log is None:
            return None
        return self._log(
            CollectiveRecord(
                call.group.ranks,
                number,
                call.operator.op,
                call["dtype"],
                call["size"],
                call.peer,
                call["tag"],
                call["waits"],
                call["step"],
                call.group.name,
            )
        )


class _Call(Mapping[str, Any]):
    """One call of an operator: the ``Collective`` that faults see, and the attributes of its visit."""

    __slots__ = (
        *("_after", "_args", "_during", "_inputs", "_kernels", "_times"),
        *("group", "keyset", "operator", "peer"),
    )
    _NAMES = ("op", "group", "size", "dtype", "sequence", "peer", "tag", "waits", "step")

    def __init__(
        self, kernels: _Kernels, operator: _Operator, keyset: Any, args: tuple[Any, ...]
    ) -> None:
        self._kernels, self.operator, self.keyset, self._args = kernels, operator, keyset, args
        self.group = kernels.group_of(args[operator.group])
        peer = None if operator.peer is None else args[operator.peer]
        self.peer: int | None = None if peer is None else self.group.ranks[peer]
        self._inputs: list[Any] | None = None
        self._times = 1
        self._during: Sequence[Callable[[], None]] = ()
        self._after: Sequence[Callable[[], None]] = ()

    # -- what faults call --------------------------------------------------------------------------

    @property
    def inputs(self) -> list[Any]:
        """Return the tensors that this rank gives."""
        if self._inputs is None:
            self._inputs = _flat(self._args[self.operator.inputs]) if self._gives else []
        return self._inputs

    @property
    def outputs(self) -> list[Any]:
        """Return the tensors that the operation fills in this rank."""
        return _flat(self._args[self.operator.outputs]) if self._takes else []

    def skip(self) -> None:
        """Do not launch it."""
        self._times = 0

    def double(self) -> None:
        """Launch it twice."""
        self._times = 2

    def during(self, action: Callable[[], None]) -> None:
        """Call ``action()`` when it has been launched."""
        self._during = (*self._during, action)

    def after(self, action: Callable[[], None]) -> None:
        """Call ``action()`` when it is finished."""
        self._after = (*self._after, action)

    # -- facts -------------------------------------------------------------------------------------

    @property
    def _in_place(self) -> bool:
        return self.operator.inputs == self.operator.outputs

    @property
    def _gives(self) -> bool:
        """Return True if this rank contributes tensors."""
        op: str = self.operator.op
        if op == "broadcast":
            return self.peer == self.group.rank
        return op not in ("recv", *_BARRIERS)

    @property
    def _takes(self) -> bool:
        """Return True if this rank receives tensors."""
        op: str = self.operator.op
        if op == "broadcast":
            return self.peer != self.group.rank
        if op == "reduce":
            return self.peer == self.group.rank
        return op not in ("send", *_BARRIERS)

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what is counted together with this call in its group."""
        if self.operator.op not in POINT_TO_POINT:
            return ()
        return self.operator.op, self.peer, self.argument(self.operator.tag, 0)

    def argument(self, place: int | None, default: Any) -> Any:
        """Return an argument by its position. torch leaves out those with default values."""
        return default if place is None or place >= len(self._args) else self._args[place]

    def tensors(self) -> list[Any]:
        """Return the tensors that describe the call in all ranks alike."""
        operator = self.operator
        if operator.op in _BARRIERS:
            return []
        return _flat(self._args[operator.outputs if operator.op == "scatter" else operator.inputs])

    def is_counted(self, key: Key) -> bool:
        """Return True if a key counts this call."""
        ranks: Sequence[int] = self.group.ranks
        if self.operator.op in POINT_TO_POINT and self.peer is not None:
            ranks = (self.group.rank, self.peer)
        return is_counted(key, self.operator.op, ranks)

    # -- attributes --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        yield from self._NAMES
        if "rank" not in self._kernels.controller.attributes:
            yield from ("rank", "world_size")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Any:
        operator = self.operator
        match name:
            case "op":
                return operator.op
            case "group":
                return self.group.ranks
            case "size":
                return sum(tensor.numel() for tensor in self.tensors())
            case "dtype":
                return next((str(t.dtype).removeprefix("torch.") for t in self.tensors()), "")
            case "sequence":
                return self.group.number(self.kind)
            case "peer":
                return self.peer
            case "tag":
                return self.argument(operator.tag, 0)
            case "waits":
                return not (operator.returns and self.argument(operator.waits, True))
            case "step":
                return self._kernels.controller.count("train.step")
            case "rank":
                return self.group.rank
            case "world_size":
                return _world_size(self)
        raise KeyError(name)

    # -- the operation -----------------------------------------------------------------------------

    def launch(self) -> Any:
        """Launch it, without faults."""
        launched = self._kernels.launched(self)
        result = self.operator.call.redispatch(self.keyset, *self._args)
        if launched is not None:
            launched(result)
        return result

    def disturbed(self, gates: Sequence[Gate]) -> Any:
        """Launch it inside the gates of faults, as these want it."""
        with contextlib.ExitStack() as stack:
            for gate in gates:
                stack.enter_context(gate)
            for gate in gates:
                gate.wait()
                if gate.payload is not self.inputs:
                    self._give(gate.payload)
            return self._launch_as_wanted()

    def _launch_as_wanted(self) -> Any:
        # An operator without a result returns when it is finished.
        blocks = not self.operator.returns or self._times == 0
        if blocks:
            _run(self._during)
        result = self._finished() if self._times == 0 else None
        for number in range(self._times):
            if number and self.operator.op not in POINT_TO_POINT:
                _wait(result)
            result = self.launch()
        if not blocks:
            _run(self._during)
        if self._after and _wait(result):
            _run(self._after)
            # A second wait for the same work would copy its result again (gloo's reduce_scatter).
            result = self._finished()
        return result

    def _give(self, tensors: object) -> None:
        """Give other tensors than the subject does."""
        import torch

        given = list(tensors) if isinstance(tensors, Sequence) else []
        if len(given) != len(self.inputs) or not all(
            isinstance(new, torch.Tensor) and (new.shape, new.dtype) == (old.shape, old.dtype)
            for new, old in zip(given, self.inputs, strict=False)
        ):
            raise PayloadMismatch(
                f"a fault at {COLLECTIVE}.{self.operator.op} must return tensors of the same "
                f"number, shapes and types as the payload"
            )
        if self._in_place and self._takes:
            with torch.no_grad():
                for new, old in zip(given, self.inputs, strict=True):
                    if new is not old:
                        old.copy_(new)
            return
        args = list(self._args)
        args[self.operator.inputs] = _like(args[self.operator.inputs], iter(given))
        self._args = tuple(args)

    def _finished(self) -> Any:
        """Return the result of a finished operation that did nothing."""
        import torch
        from torch._C import _distributed_c10d

        if not self.operator.returns:
            return None
        tensors = self._args[self.operator.outputs]
        future: Any = torch.futures.Future()
        future.set_result(_flat(tensors))
        create: Callable[..., Any] = _distributed_c10d.__dict__["_create_work_from_future"]
        work = create(future).boxed()
        return work if self.operator.returns == 1 else (tensors, work)


def _world_size(call: _Call) -> int:
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else len(call.group.ranks)


def _positional(
    operator: _Operator, args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return all arguments by position."""
    given = dict(zip(operator.arguments, args, strict=False)) | dict(keywords)
    defaults = {argument.name: argument for argument in operator.call._schema.arguments}
    last = max(operator.arguments.index(name) for name in given)
    return tuple(
        given[name] if name in given else defaults[name].default_value
        for name in operator.arguments[: last + 1]
    )


def _flat(value: Any) -> list[Any]:
    """Return the tensors of an argument: a tensor, or a list of tensors or lists."""
    if not isinstance(value, (list, tuple)):
        return [] if value is None else [value]
    if value and isinstance(value[0], (list, tuple)):
        return [tensor for part in value for tensor in part]
    return list(value)


def _like(value: Any, tensors: Iterator[Any]) -> Any:
    """Return an argument of the same structure with other tensors."""
    if isinstance(value, (list, tuple)):
        return [_like(part, tensors) for part in value]
    return next(tensors)


def _run(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        action()


def _wait(result: Any) -> bool:
    """Wait until an operation is finished. Return False if it failed: the subject's wait raises."""
    from torch._C._distributed_c10d import Work

    boxed = result[-1] if isinstance(result, (list, tuple)) else result
    if boxed is None:
        return True
    try:
        Work.unbox(boxed).wait()
    except Exception:  # noqa: BLE001  # any error of a backend
        return False
    return True
