"""Trying policies for real: short-lived pods, every trace of which goes by itself."""
