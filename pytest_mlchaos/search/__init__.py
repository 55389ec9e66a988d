"""Which schedules to try."""
