"""From the points of an object to its oriented box."""
