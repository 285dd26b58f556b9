"""From what agents' streams hand over to one transaction in the store."""
