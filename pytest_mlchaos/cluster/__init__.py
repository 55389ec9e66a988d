"""Run one session of pytest on many workers: ``python -m pytest_mlchaos run``.

The plugin splits a session into shards and joins their journals. An existing engine starts the
workers. This folder only decides which worker runs which shards.
"""
