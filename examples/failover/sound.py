"""Ask the next replica if one fails, with the key of the request, which is billed once."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from examples.failover.replica import Replica

Request = dict[str, Any]


def balancer(replicas: Sequence[Replica]) -> Callable[[Request], Awaitable[str]]:
    """Return an app that asks the replicas in order."""

    async def app(request: Request) -> str:
        for replica in replicas[:-1]:
            try:
                return await replica.predict_once(request)
            except OSError:  # its zone is away: fail over
                continue
        return await replicas[-1].predict_once(request)

    return app
