"""The SPEAR model, its inference engines and the node that runs them."""
