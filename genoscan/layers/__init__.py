"""How the maths becomes a model."""
