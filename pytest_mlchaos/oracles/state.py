"""Judge whether two states are equal, and find where they first differ.

Messages name paths, shapes, dtypes, counts and differences, never the values themselves.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
import os
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..core.privacy import MAX_SHOWN_COUNT, attribute_text, difference_text, key_text, shows_values
from ..core.recording import oracle
from ..core.validation import TEXT, TOLERANCE, check_arguments, format_number
from ..errors import StateDiffers
from .functions import class_differences, code_differences, is_code, is_local

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

__all__ = ["assert_same_state", "first_difference"]


@oracle
@check_arguments("assert_same_state", rtol=TOLERANCE, atol=TOLERANCE, name=TEXT)
def assert_same_state(
    actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, name: str = "state"
) -> None:
    """Raise ``StateDiffers`` unless two states are equal.

    States are numbers, texts, torch tensors, modules, optimizers and any object with a
    ``state_dict()``, NumPy arrays, pandas and pyarrow objects, dataclasses, and mappings, sequences
    and sets of them, nested. NaN equals NaN. Types, shapes, dtypes, keys and lengths may not
    differ. The device does not matter. Functions, methods and classes are compared by their code
    and their closures. Objects of other kinds are compared by ``==`` if their class defines it, or
    else by their attributes.

    Args:
        actual: The state to judge.
        expected: The state to compare with.
        rtol: Values may differ by ``atol + rtol * abs(expected)``.
        atol: See ``rtol``.
        name: The name of the state in the message.
    """
    difference = first_difference(actual, expected, rtol=rtol, atol=atol, name=name)
    if difference is not None:
        raise StateDiffers(difference)


_LEAVES = frozenset({str, bytes, int, float, bool, complex})


def first_difference(
    actual: object,
    expected: object,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    name: str = "state",
    through_files: bool = False,
    across_ranks: bool = False,
) -> str | None:
    """Return the first difference in words, or None.

    ``through_files`` is True if one of the two may come from a file, whose format does not keep
    each type. JSON turns a tuple into a list, and NumPy turns a number into an array. Then only the
    content is compared.

    ``across_ranks`` is True if the two come from different ranks. Their shards of a tensor may then
    be different pieces of it.
    """
    return next(
        _Comparison(rtol, atol, through_files, across_ranks).differences(actual, expected, name),
        None,
    )


def _is_instance(library: str, kind: str, value: object) -> bool:
    """Return ``isinstance(value, library.kind)`` without an import of the library."""
    cls = getattr(sys.modules.get(library), kind, None)
    return cls is not None and isinstance(value, cls)


def _type(value: object) -> str:
    return type(value).__name__


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Number) or _is_instance("numpy", "generic", value)


def _plain(value: Any) -> Any:
    """Return what the plainest file format would keep of a value: a number, a text or a list."""
    if isinstance(value, bool) or _is_instance("numpy", "bool_", value):
        return int(value)
    if _is_instance("numpy", "ndarray", value) or _is_instance("torch", "Tensor", value):
        return value.tolist()  # a number, if it has no dimension
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "popleft") or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    ):
        return list(value)
    return value


def _is_same_leaf(a: object, b: object) -> bool:
    """Return True for one object, and for equal values of a built-in type without content."""
    return a is b or (type(a) in _LEAVES and type(a) is type(b) and bool(a == b))


@dataclasses.dataclass
class _Comparison:
    """Walk over two states in step."""

    rtol: float
    atol: float
    through_files: bool = False
    across_ranks: bool = False
    _compared: dict[tuple[int, int], tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    def differences(self, a: object, b: object, path: str) -> Iterator[str]:
        if _is_same_leaf(a, b):
            return
        # Compare only once what many objects share, for example the data set of each sample. This
        # also ends a cycle.
        pair = (id(a), id(b))
        if pair in self._compared:
            return
        self._compared[pair] = a, b  # keep the pair alive, so that no other object gets the same id
        yield from self._dispatch(a, b, path)

    def _dispatch(self, a: object, b: object, path: str) -> Iterator[str]:
        if self.through_files and type(a) is not type(b):
            a, b = _plain(a), _plain(b)
        if _is_instance("torch", "Tensor", a) and _is_instance("torch", "Tensor", b):
            yield from self._tensors(a, b, path)
        elif _is_instance("numpy", "ndarray", a) and _is_instance("numpy", "ndarray", b):
            yield from self._arrays(a, b, path)
        elif isinstance(a, bool) or isinstance(b, bool) or not (_is_number(a) and _is_number(b)):
            yield from self._objects(a, b, path)
        else:
            yield from self._numbers(a, b, path)

    def _objects(self, a: Any, b: Any, path: str) -> Iterator[str]:
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from self._mappings(a, b, path)
        elif _is_instance("pandas", "Index", a) and _is_instance("pandas", "Index", b):
            yield from self._pandas(a, b, path)
        elif type(a) is not type(b) and not self._are_one_class(type(a), type(b)):
            yield f"{path}: {_type(a)} instead of {_type(b)}"
        elif isinstance(a, (str, bytes)):
            yield from self._texts(a, b, path)
        elif isinstance(a, Set):
            yield from self._sets(a, b, path)
        elif any(_is_instance("pandas", kind, a) for kind in ("DataFrame", "Series")):
            yield from self._pandas(a, b, path)
        elif any(
            _is_instance("pyarrow", kind, a)
            for kind in ("Table", "RecordBatch", "Array", "ChunkedArray")
        ):
            yield from self._equal(a.equals(b), a, path)
        elif isinstance(a, Sequence) or hasattr(a, "popleft"):
            yield from self._sequences(list(a), list(b), path)
        elif callable(getattr(a, "state_dict", None)) and not isinstance(a, type):
            yield from self.differences(a.state_dict(), b.state_dict(), path)
            if callable(getattr(a, "named_buffers", None)):
                # Include the buffers that no checkpoint holds.
                yield from self.differences(
                    dict(a.named_buffers()), dict(b.named_buffers()), f"{path}.buffers"
                )
        elif dataclasses.is_dataclass(a) and not isinstance(a, type):
            for field in dataclasses.fields(a):
                yield from self.differences(
                    getattr(a, field.name, None),
                    getattr(b, field.name, None),
                    f"{path}.{field.name}",
                )
        else:
            yield from self._others(a, b, path)

    def _are_one_class(self, a: type, b: type) -> bool:
        """Return True if two calls of one function made the two classes."""
        return (
            is_local(a)
            and is_local(b)
            and next(class_differences(a, b, "", self.differences), None) is None
        )

    def _numbers(self, a: Any, b: Any, path: str) -> Iterator[str]:
        try:
            real = float(a), float(b)
        except (TypeError, OverflowError):
            yield from self._equal(a == b, a, path)
            return
        if a == b or all(map(math.isnan, real)):
            return
        if all(map(math.isfinite, real)):
            whole = isinstance(a, numbers.Integral) and isinstance(b, numbers.Integral)
            gap = (
                abs(int(a) - int(b))
                if whole
                else float(abs(a - b))
                if type(a) is type(b)
                else abs(real[0] - real[1])
            )
            if (self.atol or self.rtol) and gap <= self.atol + self.rtol * abs(real[1]):
                return
            yield f"{path}: {difference_text(a, b, gap, _amount(gap))} ({_type(a)})"
        else:
            yield f"{path}: differs by {_amount(abs(real[0] - real[1]))} ({_type(a)})"

    def _texts(self, a: Any, b: Any, path: str) -> Iterator[str]:
        if a != b:
            place = next(
                (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                min(len(a), len(b)),
            )
            yield f"{path}: texts differ from position {place} on (lengths {len(a)} and {len(b)})"

    def _sets(self, a: Any, b: Any, path: str) -> Iterator[str]:
        if a != b:
            yield f"{path}: {len(a - b)} elements too many, {len(b - a)} missing ({_type(a)})"

    def _equal(self, same: object, a: object, path: str) -> Iterator[str]:
        if not same:
            yield f"{path}: not equal ({_type(a)})"

    def _mappings(self, a: Mapping[Any, Any], b: Mapping[Any, Any], path: str) -> Iterator[str]:
        names = hasattr(b, "_metadata")  # a module's state: its keys are the names of parameters
        for place, key in enumerate(b):
            if key not in a:
                yield f"{path}[{key_text(key, place, len(b), names=names)}]: missing"
        for place, key in enumerate(a):
            if key not in b:
                yield f"{path}[{key_text(key, place, len(a))}]: not expected"
        for place, key in enumerate(b):
            if key in a and not _is_same_leaf(x := a[key], y := b[key]):
                # The text of a key takes longer than most values.
                yield from self.differences(
                    x, y, f"{path}[{key_text(key, place, len(b), names=names)}]"
                )

    def _sequences(self, a: Sequence[Any], b: Sequence[Any], path: str) -> Iterator[str]:
        # A missing entry at the start shifts all others, so their differences would say nothing.
        if len(a) != len(b):
            yield f"{path}: {len(a)} entries instead of {len(b)}"
        for place, (x, y) in enumerate(zip(a, b, strict=False)):
            if not _is_same_leaf(x, y):
                yield from self.differences(x, y, f"{path}[{place}]")

    def _pandas(self, a: pd.DataFrame, b: pd.DataFrame, path: str) -> Iterator[str]:
        if _is_instance("pandas", "MultiIndex", a) or _is_instance("pandas", "MultiIndex", b):
            yield from self.differences(a.to_list(), b.to_list(), path)
        elif a.shape != b.shape:
            yield f"{path}: shape {a.shape} instead of {b.shape}"
        elif a.ndim == 2:
            yield from self.differences(list(a.columns), list(b.columns), f"{path}.columns")
            yield from self.differences(a.index, b.index, f"{path}.index")
            for place, column in enumerate(b.columns):
                name = key_text(column, place, len(b.columns), noun="column")
                yield from self._columns(a.iloc[:, place], b.iloc[:, place], f"{path}[{name}]")
        else:
            if hasattr(a, "index"):
                yield from self.differences(a.index, b.index, f"{path}.index")
            yield from self._columns(a, b, path)

    def _columns(self, a: pd.DataFrame, b: pd.DataFrame, path: str) -> Iterator[str]:
        if str(a.dtype) != str(b.dtype):
            yield f"{path}: dtype {a.dtype} instead of {b.dtype}"
            return
        import numpy as np

        empty = np.asarray(b.isna())
        missing = np.asarray(a.isna()) != empty
        if missing.any():
            yield f"{path}[{int(missing.argmax())}]: {int(missing.sum())} of {len(a)} entries are missing on one side only"
            return
        # Integers with missing values would become floats.
        dtype = object if empty.any() and hasattr(b.dtype, "na_value") else None
        yield from self._arrays(a.to_numpy(dtype), b.to_numpy(dtype), path)

    def _others(self, a: Any, b: object, path: str) -> Iterator[str]:
        """Compare two objects by their ``==``, or else by what they hold.

        They hold what pickle would keep, or their attributes.
        """
        if is_code(a):
            yield from code_differences(a, b, path, self.differences)
            return
        # a cache, or an object of a decorator's own class
        if callable(a) and hasattr(a, "__wrapped__") and hasattr(b, "__wrapped__"):
            inner = next(self.differences(a.__wrapped__, b.__wrapped__, path), None)
            if inner is not None:
                yield inner
                return
        if hasattr(a, "__array__") and hasattr(b, "__array__"):
            import numpy as np

            yield from self._arrays(np.asarray(a), np.asarray(b), path)
            return
        # Most classes inherit it
        judges = type(a).__eq__ is not object.__eq__  # type: ignore[comparison-overlap]
        if judges and _truth(a == b):
            return
        kept = _state_of(a), _state_of(b)
        if kept[0] is None or kept[1] is None:
            yield (
                f"{path}: two objects of type {_type(a)}, which cannot be compared"
                if not judges
                else f"{path}: not equal ({_type(a)})"
            )
            return
        found = False
        for difference in self._attributes(kept[0], kept[1], path):
            found = True
            yield difference
        if judges and not found:
            yield f"{path}: not equal ({_type(a)})"

    def _attributes(self, a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> Iterator[str]:
        for name in b:
            yield from self.differences(a.get(name), b[name], f"{path}.{attribute_text(name)}")
        if extra := a.keys() - b.keys():
            yield f"{path}.{attribute_text(min(extra))}: not expected"

    def _arrays(self, a: Any, b: Any, path: str) -> Iterator[str]:
        import numpy as np

        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{path}: {a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
        elif a.dtype.names:
            for place, field in enumerate(a.dtype.names):
                name = key_text(field, place, len(a.dtype.names), noun="field")
                yield from self._arrays(a[field], b[field], f"{path}[{name}]")
        elif a.dtype.kind in "biufc":
            yield from _numeric(np, a, b, self.rtol, self.atol, path)
        elif a.dtype.kind == "O":
            yield from self._cells(a, b, path)
        else:
            wrong = (a != b) & ~((a != a) & (b != b))
            if wrong.any():
                first = [int(i) for i in np.argwhere(wrong)[0]] if a.shape else []
                yield f"{path}{first}: {int(wrong.sum())} of {a.size} entries differ ({a.dtype}{list(a.shape)})"

    def _cells(self, a: pd.DataFrame, b: pd.DataFrame, path: str) -> Iterator[str]:
        """Compare arrays of objects, cell by cell."""
        import numpy as np

        places = (
            (next(self.differences(a[place], b[place], f"{path}{list(place)}"), None))
            for place in np.ndindex(a.shape)
        )
        wrong = [difference for difference in places if difference is not None]
        if wrong:
            yield wrong[0] + (
                f"; {len(wrong)} of {a.size} entries differ" if len(wrong) > 1 else ""
            )

    def _tensors(self, a: object, b: object, path: str) -> Iterator[str]:
        try:
            found = list(itertools.islice(self._tensors_of_one_kind(a, b, path), 1))
        except Exception as error:  # noqa: BLE001
            # A subclass may raise anything, and that must not end the comparison.
            found = [
                f"{path}: two tensors of type {_type(a)} ({_tensor_type(b)}), which cannot be "
                f"compared ({type(error).__name__})"
            ]
        yield from found

    def _tensors_of_one_kind(self, a: Any, b: Any, path: str) -> Iterator[str]:
        if _is_sharded(a) and _is_sharded(b):
            yield from self._shards(a, b, path)
        elif _is_sharded(a) or _is_sharded(b):
            yield f"{path}: {_type(a)} instead of {_type(b)}"
        elif a.layout != b.layout or a.dtype != b.dtype or (not a.is_nested and a.shape != b.shape):
            yield f"{path}: {_tensor_type(a)} instead of {_tensor_type(b)}"
        elif a.is_nested:
            yield from self.differences(list(a.detach().unbind()), list(b.detach().unbind()), path)
        elif _is_wrapper(a) and _is_wrapper(b):
            yield from self._wrappers(a, b, path)
        else:
            yield from self._values(a, b, path)

    def _shards(self, a: Any, b: Any, path: str) -> Iterator[str]:
        """Compare tensors of which each rank holds a part: their layouts, then the parts."""
        if a.shape != b.shape or a.dtype != b.dtype or a.placements != b.placements:
            yield f"{path}: {_tensor_type(a)} {a.placements} instead of {_tensor_type(b)} {b.placements}"
        elif not (self.across_ranks and _piece(a) != _piece(b)):
            yield from self.differences(a.to_local(), b.to_local(), f"{path}.to_local()")

    def _wrappers(self, a: Any, b: Any, path: str) -> Iterator[str]:
        """Compare tensors that consist of others, as quantized weights consist of integers and
        scales.
        """
        (names, context), (expected_names, expected) = (
            a.__tensor_flatten__(),
            b.__tensor_flatten__(),
        )
        yield from self.differences(
            (type(a).__qualname__, list(names)), (type(b).__qualname__, list(expected_names)), path
        )
        for name in names:
            yield from self.differences(getattr(a, name), getattr(b, name), f"{path}.{name}")
        yield from self.differences(context, expected, f"{path}.context")

    def _values(self, a: object, b: object, path: str) -> Iterator[str]:
        torch = sys.modules["torch"]
        dtype = _tensor_type(a).partition("[")[0]
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            a, b = _dense(torch, a), _dense(torch, b)
        import numpy as np

        yield from _numeric(np, a, b, self.rtol, self.atol, path, dtype)


def _is_sharded(tensor: torch.Tensor) -> bool:
    """Return True for a DTensor, of which each rank holds a part."""
    return hasattr(tensor, "to_local") and hasattr(tensor, "placements")


def _is_wrapper(tensor: torch.Tensor) -> bool:
    return callable(getattr(tensor, "__tensor_flatten__", None)) and type(tensor).__name__ not in (
        "Tensor",
        "Parameter",
    )


def _piece(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return which part of a sharded tensor this rank holds.

    This is its coordinate in each dimension of the mesh, except dimensions that hold copies.
    """
    coordinate = tensor.device_mesh.get_coordinate() or ()
    return tuple(
        place
        for place, placement in zip(coordinate, tensor.placements, strict=True)
        if not placement.is_replicate()
    )


def _dense(torch: ModuleType, tensor: torch.Tensor) -> Any:
    """Return a tensor's values as a NumPy array, floats in the widest type.

    Raise ``TypeError`` if it holds no values.
    """
    tensor = tensor.detach()
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    if tensor.is_meta:
        raise TypeError("it holds no values")
    tensor = tensor.cpu()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.numel() and not tensor.untyped_storage().nbytes():
        # Reading it would crash the process.
        raise TypeError("its storage was freed, as a sharded model's is")
    wide = (
        torch.complex128
        if tensor.is_complex()
        else torch.float64
        if tensor.is_floating_point()
        else None
    )
    try:
        tensor = tensor if wide is None else tensor.to(wide)
        return tensor.resolve_conj().resolve_neg().numpy()
    # torch defines no arithmetic for some types of a few bits
    except (RuntimeError, TypeError, NotImplementedError):
        return tensor.contiguous().view(torch.uint8).numpy()


def _truth(answer: object) -> bool:
    """Return the result of a comparison. An array or an error counts as False."""
    try:
        return bool(answer)
    except (ValueError, TypeError, RuntimeError):
        return False


def _state_of(value: object) -> dict[str, Any] | None:
    """Return what an object holds: its attributes, and the state that it gives to pickle."""
    cls = type(value)
    own = any(
        getattr(cls, name) is not getattr(object, name)
        for name in ("__reduce__", "__reduce_ex__", "__getstate__")
    )
    attributes = {
        **getattr(value, "__dict__", {}),
        **{name: getattr(value, name) for name in _slots(value) if hasattr(value, name)},
    }
    if attributes and not own:
        return attributes
    try:
        reduced = value.__reduce_ex__(4)
    except TypeError:
        return attributes or None
    return {**attributes, "<state>": reduced if isinstance(reduced, str) else reduced[1:3]}


def _slots(value: object) -> list[str]:
    return [
        name
        for cls in type(value).__mro__
        for name in _names(cls.__dict__.get("__slots__", ()))
        if not name.startswith("__")
    ]


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _tensor_type(tensor: torch.Tensor) -> str:
    layout = "" if str(tensor.layout) == "torch.strided" else f" {tensor.layout}"
    shape = "[nested]" if tensor.is_nested else list(tensor.shape)
    return f"{str(tensor.dtype).removeprefix('torch.')}{shape}{layout}"


def _numeric(
    np: ModuleType, a: Any, b: Any, rtol: float, atol: float, path: str, dtype: str = ""
) -> Iterator[str]:
    """Yield where two arrays of one shape and dtype differ by more than allowed."""
    same = (a == b) | ((a != a) & (b != b))
    if same.all():
        return
    exact = a.dtype.kind in "biu" and not rtol and not atol
    with np.errstate(invalid="ignore", over="ignore"):
        wide = (
            a.astype(object if a.dtype.itemsize == 8 else "i8")
            if exact
            else a.astype("c16" if a.dtype.kind == "c" else "f8")
        )
        gap = np.abs(wide - b.astype(wide.dtype))
        within = (
            (gap <= atol + rtol * np.abs(b)) & np.isfinite(a) & np.isfinite(b)
            if not exact
            else same
        )
        wrong = ~(same | within)
    if not wrong.any():
        return
    first = tuple(np.argwhere(wrong)[0]) if a.shape else ()
    finite = bool(np.isfinite(gap[wrong].astype(float)).any())
    by = (int if a.dtype.kind in "biu" else float)(gap[first])
    amount = (
        difference_text(a[first].item(), b[first].item(), by, _amount(by))
        if math.isfinite(by)
        else "is finite on one side only"
    )
    most = (
        f", by at most {_most(np, a[wrong], b[wrong], gap[wrong])}"
        if finite and wrong.sum() > 1
        else ""
    )
    place = list(map(int, first)) if first else ""
    yield f"{path}{place}: {amount}; {int(wrong.sum())} of {a.size} entries differ{most} ({dtype or a.dtype}{list(a.shape)})"


def _amount(gap: float) -> str:
    """Format a difference. Integers are exact on any machine."""
    return str(gap) if isinstance(gap, int) else format_number(gap)


def _most(np: ModuleType, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], gap: Any) -> str:
    """Return the largest finite difference of entries.

    It is a percentage if a number would reveal a value.
    """
    gap = np.abs(gap).astype("f8")
    finite = np.isfinite(gap)
    sizes = [
        np.abs(side[finite].astype("c16" if side.dtype.kind == "c" else "f8")) for side in (a, b)
    ]
    gap, smaller, larger = gap[finite], np.minimum(*sizes), np.maximum(*sizes)
    few = (gap <= MAX_SHOWN_COUNT) & (smaller > 0) & (a.dtype.kind in "biu")
    if shows_values() or bool((few | (2 * gap <= smaller)).all()):
        return _amount(int(gap.max()) if a.dtype.kind in "biu" else float(gap.max()))
    return f"{100 * float((gap / larger).max()):.3g} %"
