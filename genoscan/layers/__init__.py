"""Layers, configuration and weights of models."""
