"""Normalisation statistics of a mixture, and what is odd about its datasets."""
