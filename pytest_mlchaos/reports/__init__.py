"""What the user reads: the terminal's text, the journal file, the catalogue."""
