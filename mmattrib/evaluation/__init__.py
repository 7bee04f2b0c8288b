"""Evaluation: methods on data sets, scored by metrics."""
