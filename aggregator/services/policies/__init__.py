"""Policies as a caller is shown them: proposed, previewed, signed and applied."""
