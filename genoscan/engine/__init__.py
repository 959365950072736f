"""Exact derivatives of networks over long windows, computed tile by tile."""
