"""The command line as a client of a running aggregator: it speaks REST (docs/adr/0007)."""
