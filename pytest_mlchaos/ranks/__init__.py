"""Run a subject in ranks (``mlchaos.world``), each of which is a process of its own."""
