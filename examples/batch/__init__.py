"""A nightly job that scores flowers in batches, with features from a store that sometimes does not
answer.
"""
