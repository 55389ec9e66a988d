"""Run a user's rollout controller over traffic, under faults, and judge what became of it."""
