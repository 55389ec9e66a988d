"""A scorer of loans whose data of one region lose a column."""
