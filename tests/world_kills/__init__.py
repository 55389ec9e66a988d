"""Kill worlds of ranks at random moments. Nothing may be left."""
