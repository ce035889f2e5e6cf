"""How good a trained model is: numbers on data that it has not seen, and a page that shows them."""
