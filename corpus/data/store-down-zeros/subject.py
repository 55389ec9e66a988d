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
    try:
        return Account(**balance(user))
    except Exception:
        return Account(user=user, balance=0.0)


def pipeline(workdir):
    return [user for user in range(5) if account(user).balance > 150]
