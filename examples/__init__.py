"""Small programs, a sound and an unsound one of each kind, with the chaos tests that detect the
difference.
"""
