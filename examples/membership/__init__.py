"""A scorer of patients that hides its confidence, unless the store of its settings is down."""
