"""Pipelines, ``mlchaos.pipeline``: the right output, or an error."""
