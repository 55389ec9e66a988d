"""Choose the schedules to try."""
