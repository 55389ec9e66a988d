"""Make the errors that storage raises, by name: errno, S3's codes, and the errors of clients.

Each backend package is one row of ``PACKAGES``. It is imported when its error is made.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ...core.faults import Fault, is_drawn
from ...core.storage import Operation
from ...core.validation import did_you_mean, format_value
from ...errors import BadArgument, MissingExtra

__all__ = ["check_error", "storage_error"]

WORDS = {"timeout": errno.ETIMEDOUT, "throttled": errno.EBUSY}
COMMON = (
    "EIO",
    "ENOSPC",
    "EDQUOT",
    "EACCES",
    "EROFS",
    "ENOENT",
    "ESTALE",
    "EBUSY",
    "EAGAIN",
    "ECONNRESET",
    "EXDEV",
)
ERRNOS = {name: number for number, name in errno.errorcode.items()} | WORDS
BUILT_IN = {
    "FileNotFoundError": errno.ENOENT,
    "FileExistsError": errno.EEXIST,
    "PermissionError": errno.EACCES,
    "TimeoutError": errno.ETIMEDOUT,
    "InterruptedError": errno.EINTR,
    "BlockingIOError": errno.EAGAIN,
    "BrokenPipeError": errno.EPIPE,
    "ConnectionResetError": errno.ECONNRESET,
    "ConnectionRefusedError": errno.ECONNREFUSED,
    "ConnectionAbortedError": errno.ECONNABORTED,
    "IsADirectoryError": errno.EISDIR,
    "NotADirectoryError": errno.ENOTDIR,
    "OSError": errno.EIO,
}
"""Built-in exceptions, each with the errno that makes Python choose this class."""
S3_CODES: Mapping[str, tuple[int, str]] = {
    "SlowDown": (503, "Please reduce your request rate."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to"),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time"),
    "ExpiredToken": (400, "The provided token has expired."),
    "AccessDenied": (403, "Access Denied"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
}
"""The codes of S3's errors, each with its HTTP status and message."""
S3_CALLS = {"open": "HeadObject", "read": "GetObject", "write": "PutObject", "rename": "CopyObject"}
MARK = "(injected by mlchaos)"


def _botocore(name: str, text: str) -> BaseException:
    exceptions = importlib.import_module("botocore.exceptions")
    if name == "IncompleteReadError":
        return exceptions.IncompleteReadError(actual_bytes=0, expected_bytes=1)  # type: ignore[no-any-return]
    return getattr(exceptions, name)(endpoint_url=text, error=text)  # type: ignore[no-any-return]


def _aiohttp(name: str, text: str) -> BaseException:
    aiohttp: Any = importlib.import_module("aiohttp")
    if name in ("ClientConnectorError", "ServerTimeoutError", "ClientOSError"):
        number = errno.ECONNREFUSED if name == "ClientConnectorError" else errno.ECONNRESET
        cls = aiohttp.ClientOSError if name == "ClientConnectorError" else getattr(aiohttp, name)
        return cls(number, text) if name != "ServerTimeoutError" else cls(text)  # type: ignore[no-any-return]
    return getattr(aiohttp, name)(text)  # type: ignore[no-any-return]


def _by_text(package: str, module: str | None = None) -> Callable[[str, str], BaseException]:
    """Return a function that makes an exception of a package from its text."""

    def make(name: str, text: str) -> BaseException:
        error: BaseException = getattr(importlib.import_module(module or package), name)(text)
        return error

    return make


PACKAGES: Mapping[str, tuple[Callable[[str, str], BaseException], tuple[str, ...]]] = {
    "botocore": (
        _botocore,
        (
            "EndpointConnectionError",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "ConnectionClosedError",
            "IncompleteReadError",
        ),
    ),
    "aiohttp": (
        _aiohttp,
        (
            "ClientPayloadError",
            "ClientConnectionError",
            "ClientOSError",
            "ServerDisconnectedError",
            "ServerTimeoutError",
        ),
    ),
    "httpx": (
        _by_text("httpx"),
        (
            "ConnectError",
            "ConnectTimeout",
            "ReadError",
            "ReadTimeout",
            "RemoteProtocolError",
            "WriteError",
            "PoolTimeout",
        ),
    ),
    "requests": (
        _by_text("requests", "requests.exceptions"),
        ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ChunkedEncodingError"),
    ),
}
"""The packages of clients: how to make an error of each, and the names of the errors."""


def _names() -> list[str]:
    clients = [f"{package}.{name}" for package, (_, names) in PACKAGES.items() for name in names]
    return [*ERRNOS, *BUILT_IN, *S3_CODES, *clients]


def _client_error(name: str) -> tuple[str, str] | None:
    """Return the package and the class of ``"httpx.ReadTimeout"``, or None."""
    package, _, last = name.replace(":", ".").partition(".")
    known = package in PACKAGES and last in PACKAGES[package][1]
    return (package, last) if known else None


def check_error(fault: Fault, error: Any) -> None:
    """Refuse an unknown name of an error, and one whose package is missing."""
    if is_drawn(error):
        return
    if error in S3_CODES:
        _require(fault, error, "botocore")
        return
    client = _client_error(error)
    if client is not None:
        _require(fault, error, client[0])
        return
    if error not in ERRNOS and error not in BUILT_IN:
        known = (
            f"{', '.join(map(repr, WORDS))}, an errno's name ({', '.join(COMMON)} or a different "
            f"one of Python's errno module), a built-in OSError ('FileNotFoundError'), a code of "
            f"S3 ('SlowDown') or an error of a client ('httpx.ReadTimeout')"
        )
        raise BadArgument(
            f"{fault.name}: error must be {known}, got "
            f"{format_value(error)}{did_you_mean(error, _names())}"
        )


def _require(fault: Fault, error: str, package: str) -> None:
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        raise MissingExtra(f"{fault.name}(error={error!r})", package, None)


def storage_error(name: str, operation: Operation) -> BaseException:
    """Return the error of this name, as the layer of the operation raises it.

    A filesystem of S3 translates the errors of its client, so it raises an ``OSError``.
    """
    if name in S3_CODES:
        return _s3_error(name, operation)
    client = _client_error(name)
    if client is not None:
        return PACKAGES[client[0]][0](client[1], f"{operation.op} of {operation.path} {MARK}")
    number = BUILT_IN.get(name) or ERRNOS[name]
    text = (
        "SlowDown: please reduce your request rate" if name == "throttled" else os.strerror(number)
    )
    if operation.source is None:
        return OSError(number, f"{text} {MARK}", operation.path)
    return OSError(number, f"{text} {MARK}", operation.source, None, operation.path)


def _s3_error(code: str, operation: Operation) -> BaseException:
    exceptions = importlib.import_module("botocore.exceptions")
    status, message = S3_CODES[code]
    error: BaseException = exceptions.ClientError(
        {
            "Error": {"Code": code, "Message": f"{message} {MARK}"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        S3_CALLS.get(operation.op, "DeleteObject"),
    )
    if "s3" in operation.protocols and "s3fs" in sys.modules:
        translated: BaseException = importlib.import_module("s3fs.errors").translate_boto_error(
            error
        )
        return translated
    return error
