"""The Gemma decoder: attention over a memory of keys and values, and the token tables."""
