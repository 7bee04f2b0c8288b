"""Data whose truth is known: the shipped sprites and sounds, and the scenes made of them."""
