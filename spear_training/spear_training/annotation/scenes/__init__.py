"""A world with known truth: pictures of made-up scenes, with exact depth, masks and boxes."""
