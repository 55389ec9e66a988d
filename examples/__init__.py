"""Small programs, one sound and one unsound of each kind, and the chaos tests that tell them apart."""
