"""Finished tracks to where they are looked at: pages and genome browsers' own files."""
