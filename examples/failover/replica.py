"""A replica of a model. It enters each prediction in a bill that all replicas share."""

import asyncio
from typing import Any


class Replica:
    """Predicts, and bills the request by its key."""

    def __init__(self, bill: list[str]) -> None:
        self.bill = bill

    async def predict(self, request: dict[str, Any]) -> str:
        """Bill a request, and answer it after 50 ms."""
        self.bill.append(request["key"])
        await asyncio.sleep(0.05)
        return "setosa" if request["petal_length"] < 2.5 else "other"

    async def predict_once(self, request: dict[str, Any]) -> str:
        """Do the same, but bill a key once."""
        if request["key"] not in self.bill:
            self.bill.append(request["key"])
        await asyncio.sleep(0.05)
        return "setosa" if request["petal_length"] < 2.5 else "other"
