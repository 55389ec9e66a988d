"""Write what the user reads: the terminal's text, the journal file, and the catalogue."""
