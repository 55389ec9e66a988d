"""Serve apps under load (``mlchaos.serve``), and judge the replies against a golden load."""
