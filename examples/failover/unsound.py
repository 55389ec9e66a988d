"""Ask the next replica if one fails. A request whose answer was lost is billed twice."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from examples.failover.replica import Replica

Request = dict[str, Any]


def balancer(replicas: Sequence[Replica]) -> Callable[[Request], Awaitable[str]]:
    """Return an app that asks the replicas in order."""

    async def app(request: Request) -> str:
        for replica in replicas[:-1]:
            try:
                return await replica.predict(request)
            except OSError:  # its zone is away: fail over
                continue
        return await replicas[-1].predict(request)

    return app
