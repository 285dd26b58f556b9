"""The pure vocabulary: values that every other part speaks in. No I/O, no clock, no wire type."""
