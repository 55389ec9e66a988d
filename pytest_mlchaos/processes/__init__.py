"""The processes that the plugin starts: a warm process, the processes forked from it, and their
clean-up."""
