"""Judge attacks on privacy: membership, extraction, inversion, and memorised texts."""
