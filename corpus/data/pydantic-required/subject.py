"""pydantic: the risk of applicants."""

from pydantic import BaseModel, FiniteFloat


class Applicant(BaseModel):
    income: FiniteFloat
    debts: FiniteFloat


def prepare(workdir):
    pass


def features(number):
    return {"income": 3000.0 + 500 * number, "debts": 100.0 * number}


def pipeline(workdir):
    applicants = [Applicant(**features(number)) for number in range(1, 5)]
    return [round((each.debts or 0) / (each.income or 1), 6) for each in applicants]
