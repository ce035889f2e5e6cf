"""The canonical store: episodes of any origin in one layout that is quick to read at random."""
