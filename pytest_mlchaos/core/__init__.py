"""Pure data and decisions; the standard library only."""
