"""Readers of the journal that write what other systems take, one file for each."""
