"""Judgements on runs and states. They see core alone, and work without any fault too."""
