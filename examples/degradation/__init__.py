"""A scorer of sensor readings, with an alert for readings that are wrong."""
