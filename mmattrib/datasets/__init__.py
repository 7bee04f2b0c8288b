"""Data sets: samples with their truth, one reader per file."""
