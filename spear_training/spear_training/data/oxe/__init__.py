"""The 25 rows of the Open X-Embodiment mixture: a table of rules, and one reader that obeys it."""
