"""Pages that show a person what a store or a mixture holds."""
