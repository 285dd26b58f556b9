"""May this connection be opened, and why: the plain evaluator and what asks it."""
