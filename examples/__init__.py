"""Scripts that use mmattrib, and what made its model, its assets and its results."""
