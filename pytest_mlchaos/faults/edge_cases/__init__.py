"""Derive strategies of edge cases from a schema."""
