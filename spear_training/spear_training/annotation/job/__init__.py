"""The annotation of many pictures: shards, journals, executors, and reading the records back."""
