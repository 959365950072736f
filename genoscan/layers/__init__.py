"""Layers of models, with their configurations and weights."""
