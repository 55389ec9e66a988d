"""Crash states, ``mlchaos.explore_crashes``: resume from each content that a crash may leave."""
