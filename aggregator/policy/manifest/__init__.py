"""Policies as the API takes them: parsed, validated, rendered, read back."""
