"""``mlchaos.watch``: alerts, guards and monitors under test."""
