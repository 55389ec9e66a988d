"""Run a world under torch's own elastic agent, as torchrun does (``mlchaos.world(elastic=True)``)."""
