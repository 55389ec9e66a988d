"""Judge the quality of a model: its metric, its probabilities, its weakest slice, its abstentions.

Each oracle passes only if the data show its claim with the stated confidence, and fails only if
they show the opposite. Anything between is ``Inconclusive``.
"""
