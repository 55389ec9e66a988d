"""Crash states, ``mlchaos.explore_crashes``: the subject resumes from each content that a crash could leave."""
