"""The run-time part: the controller that all visits pass, patches, trials and virtual time."""
