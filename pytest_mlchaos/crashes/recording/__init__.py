"""Record each change of a golden run's work directory, with the content before and after."""
