"""The processes that the plugin starts: a warm process, and those forked from it."""
