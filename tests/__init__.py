"""Tests of pytest-mlchaos."""
