"""``python -m pytest_mlchaos merge``: one verdict from the journals of all shards."""
