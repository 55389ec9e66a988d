"""Leave applicants of whom nothing is known to an officer."""

from fastapi import FastAPI

from examples.scorer.features import probability, store

app = FastAPI()


@app.get("/credit/{applicant}")
async def credit(applicant: int) -> dict[str, object]:
    """Decide on one credit."""
    try:
        features = await store.get(applicant)
    except ConnectionError:
        return {"decision": "an officer decides"}
    paid_back = probability(features)
    return {"decision": "yes" if paid_back > 0.6 else "no", "paid_back": paid_back}
