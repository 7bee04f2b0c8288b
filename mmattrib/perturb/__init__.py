"""Reducing raw inputs by weights on their own axes."""
