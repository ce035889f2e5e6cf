"""Generated scenes with exact truth."""
