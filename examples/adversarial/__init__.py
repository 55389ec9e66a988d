"""A detector of faulty parts, whose model may rely on readings that hardly differ."""
