"""Judge the replies to a load, a file for each topic."""
