"""Find and read policies: the tables ``[tool.mlchaos.policy]`` of ``pyproject.toml`` files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadArgument
from .policy import Policy, Radius, Rule
from .validation import did_you_mean, format_value, index, parse_positive_duration, parse_size

__all__ = ["APPROVALS", "combined", "find_policies", "read_policy"]

APPROVALS = "mlchaos-approvals.toml"
"""The file of the approvals, next to that of the policy."""
TABLE = "tool.mlchaos.policy"
_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
Parse = Callable[[str, Any], Any]


def _texts(name: str, value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(
        isinstance(one, str) and one.strip() for one in values
    ):
        raise BadArgument(f"{name} must be a text or a list of texts, got {format_value(value)}")
    return tuple(values)


def _whole(lowest: int, highest: int | None = None) -> Parse:
    def parse(name: str, value: object) -> int:
        number = index(value)
        if number is None or number < lowest or (highest is not None and number > highest):
            to = f" to {highest}" if highest is not None else " or more"
            raise BadArgument(
                f"{name} must be a whole number from {lowest}{to}, got {format_value(value)}"
                if highest is not None
                else f"{name} must be a whole number of {lowest}{to}, got {format_value(value)}"
            )
        return number

    return parse


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadArgument(f"{name} must be true or false, got {format_value(value)}")
    return value


def _duration(name: str, value: object) -> float:
    return parse_positive_duration(value, name)


def _size(name: str, value: object) -> int:
    return parse_size(value, name)


def _variables(name: str, value: object) -> tuple[str, ...]:
    conditions = _texts(name, value)
    for one in conditions:
        variable, equals, pattern = one.partition("=")
        if not equals or not variable.strip() or not pattern.strip():
            raise BadArgument(
                f"{name} must be NAME=pattern, such as 'ENVIRONMENT=staging', got "
                f"{format_value(one)}"
            )
    return conditions


def _approval(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("*",) if value else ()
    return _texts(name, value)


def _callable(name: str, value: object) -> str:
    if not isinstance(value, str) or not _PLACE.fullmatch(value):
        raise BadArgument(
            f"{name} must name a function, such as 'mypkg.guards:healthy', got "
            f"{format_value(value)}"
        )
    return value


def _file(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadArgument(f"{name} must be the path of a file, got {format_value(value)}")
    return value


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadArgument(f"{name} must be a table, got {format_value(value)}")
    return value


LIMITS: Mapping[str, Parse] = {
    "allow": _texts,
    "forbid": _texts,
    "max_severity": _whole(1, 5),
    "max_trials": _whole(1),
    "max_time": _duration,
    "require_owner": _flag,
    "owners": _texts,
    "approval": _approval,
    "blast_radius": _table,
    "synthetic": _table,
}
"""The keys of the policy and of each rule."""
CONDITIONS: Mapping[str, Parse] = {"marker": _texts, "path": _texts, "environment": _variables}
RADIUS: Mapping[str, Parse] = {"directories": _texts, "hosts": _texts, "processes": _flag}
WHOLE: Mapping[str, Parse] = {
    **LIMITS,
    "session_trials": _whole(1),
    "session_time": _duration,
    "approvals": _file,
    "abort": _callable,
    "min_free_memory": _size,
    "min_free_disk": _size,
}
"""The keys of the policy, but for its list of rules."""


def _parsed(
    place: str, table: Mapping[str, Any], keys: Mapping[str, Parse], more: Iterable[str] = ()
) -> dict[str, Any]:
    found = {}
    for name, value in table.items():
        if name in more:
            continue
        if name not in keys:
            known = [*keys, *more]
            raise BadArgument(
                f"{place}: unknown key {name!r}{did_you_mean(name, known)}. The keys are "
                f"{', '.join(known)}"
            )
        found[name] = keys[name](f"{place} {name}", value)
    return found


def _radius(place: str, folder: Path, table: Mapping[str, Any]) -> Radius:
    found = _parsed(f"{place} blast_radius", table, RADIUS)
    directories = found.get("directories")
    return Radius(
        directories=None
        if directories is None
        else tuple(str(folder / Path(one).expanduser()) for one in directories),
        hosts=found.get("hosts"),
        processes=found.get("processes", True),
    )


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a table by key. Those of a table inside have a dot in their key."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            found[name] = value
    return found


def _rule(place: str, folder: Path, table: Mapping[str, Any], keys: Mapping[str, Parse]) -> Rule:
    found = _parsed(place, table, keys, ("rule",) if keys is WHOLE else ())
    for name in ("approvals", "abort", "min_free_memory", "min_free_disk"):
        found.pop(name, None)
    radius = found.pop("blast_radius", None)
    synthetic = found.pop("synthetic", {})
    return Rule(
        source=place,
        folder=folder,
        given=_given(table),
        radius=Radius() if radius is None else _radius(place, folder, radius),
        synthetic={
            marker: _texts(f"{place} synthetic.{marker}", names)
            for marker, names in synthetic.items()
        },
        **found,
    )


def read_policy(file: Path) -> Policy | None:
    """Return the policy of a ``pyproject.toml``, or None without one.

    Raises:
        BadArgument: The policy has an unknown key or a wrong value. The message names the file and
            the key.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if b"mlchaos" not in content:
        return None
    import tomllib  # sessions without a policy need not load it

    shown = _shown(file)
    try:
        tree: Any = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadArgument(f"{shown} is not valid TOML: {error}") from None
    for name in TABLE.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return None
        tree = tree[name]
    return _policy(file, shown, _table(f"{shown} [{TABLE}]", tree))


def _policy(file: Path, shown: str, table: Mapping[str, Any]) -> Policy:
    place, folder = f"{shown} [{TABLE}]", file.parent
    whole = _parsed(place, table, WHOLE, ("rule",))
    rules = [_rule(place, folder, table, WHOLE)]
    given = table.get("rule", [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadArgument(
            f"{place} rule must be tables [[{TABLE}.rule]], got {format_value(given)}"
        )
    for number, one in enumerate(given, 1):
        where = f"{shown} [[{TABLE}.rule]] number {number}"
        rules.append(_rule(where, folder, one, {**CONDITIONS, **LIMITS}))
        if not CONDITIONS.keys() & one.keys():
            raise BadArgument(
                f"{where} has no condition, so it is for all tests. Give it marker, path or "
                f"environment, or write its keys under [{TABLE}]"
            )
    return Policy(
        rules=tuple(rules),
        approvals=(folder / whole.get("approvals", APPROVALS),),
        abort=((whole["abort"], f"{place} abort"),) if "abort" in whole else (),
        min_free_memory=whole.get("min_free_memory"),
        min_free_disk=whole.get("min_free_disk"),
        files=(file,),
        digest=_digest(table),
    )


def _shown(file: Path) -> str:
    """Return a path relative to the current directory, if that is shorter."""
    try:
        return min(os.path.relpath(file), str(file), key=len)
    except ValueError:  # a different drive
        return str(file)


def _digest(table: object) -> str:
    """Return the digest of a table, which does not depend on comments and the order of keys."""
    return hashlib.sha256(_plain(table).encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_plain(value[key])}' for key in sorted(value))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return repr(value)


def find_policies(starts: Iterable[Path], known: dict[Path, Policy | None]) -> list[Policy]:
    """Return the policies of these folders and of all folders above them, the outermost first.

    A test cannot leave a policy by a folder of its own, so all of them hold.

    Args:
        starts: The folders.
        known: The policies that were read before, by their folder. New ones are added.
    """
    folders = {one: None for start in starts for one in (start, *start.parents)}
    for folder in folders:
        if folder not in known:
            known[folder] = read_policy(folder / "pyproject.toml")
    ordered = sorted(folders, key=lambda folder: len(folder.parts))
    return [policy for folder in ordered if (policy := known[folder]) is not None]


def combined(policies: Iterable[Policy]) -> Policy:
    """Return one policy with the rules of all of them. Of two limits, the stricter one holds."""
    found = list(policies)
    if len(found) == 1:
        return found[0]
    digests = "\n".join(one.digest for one in found)
    return Policy(
        rules=tuple(rule for one in found for rule in one.rules),
        approvals=tuple(dict.fromkeys(file for one in found for file in one.approvals)),
        abort=tuple(dict.fromkeys(place for one in found for place in one.abort)),
        min_free_memory=_largest(one.min_free_memory for one in found),
        min_free_disk=_largest(one.min_free_disk for one in found),
        files=tuple(file for one in found for file in one.files),
        digest=hashlib.sha256(digests.encode()).hexdigest() if found else "",
    )


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
