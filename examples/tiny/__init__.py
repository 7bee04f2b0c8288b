"""What made the embedded model `tiny`: its assets, its training and its measurement."""
