"""A credit scorer that takes its features from a store."""
