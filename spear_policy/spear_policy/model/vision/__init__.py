"""The two image encoders and how their features become tokens of the language model."""
