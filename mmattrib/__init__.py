"""Which parts of one input made a joint-embedding model match it with another."""
