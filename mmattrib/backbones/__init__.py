"""Backbones that ship with the package; each registers itself through the public hooks."""
