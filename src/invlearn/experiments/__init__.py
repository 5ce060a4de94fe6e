"""Experiments: methods, recipes, comparisons and searches."""
