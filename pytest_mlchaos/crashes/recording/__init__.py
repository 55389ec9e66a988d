"""Record the work directory of a golden run: each change, with the content before and after it."""
