"""Measurements: what the project claims, as commands."""
