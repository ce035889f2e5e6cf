"""Readers of recorded data: anything goes in, `spear_policy.inference.episode.Episode` comes out."""
