"""``mlchaos.breaking_point``: how much of a fault a subject survives."""
