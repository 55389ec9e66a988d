"""Serve a command: a real server process on this machine, its client, and its end."""
