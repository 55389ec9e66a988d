"""Served apps, ``mlchaos.serve``: loads, their golden load, and the judgements on the replies."""
