"""Both training stages of SPEAR: annotation, data, recipes, training and evaluation."""
