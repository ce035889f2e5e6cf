"""What our HTML pages share: one look, and drawings and pictures inside the one file."""
