"""Mutated files, captions, arrays and option values against the public API."""
