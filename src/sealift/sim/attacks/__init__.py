"""The catalogue of attacks, run against the real code: one function per row."""
