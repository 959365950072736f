"""Model layers, their configuration and weights."""
