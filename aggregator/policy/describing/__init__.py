"""Policies in plain words, of every kind that a cluster may have."""
