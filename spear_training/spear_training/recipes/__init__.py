"""Recipes: functions that return one whole training each."""
