"""How the work directory of a golden run is recorded: each change, with the content before and after it."""
