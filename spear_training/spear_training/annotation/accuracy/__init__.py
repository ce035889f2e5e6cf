"""How close annotations come to the truth of a world where it is known."""
