"""pydantic: the users who may withdraw money."""

from pydantic import BaseModel, FiniteFloat


class Account(BaseModel, strict=True):
    user: int
    balance: FiniteFloat


def prepare(workdir):
    pass


def balance(user):
    return {"user": user, "balance": 100.0 * user}


def account(user):
    return Account(**balance(user))


def pipeline(workdir):
    return [user for user in range(5) if account(user).balance > 150]
