"""Representation of genomes, regions and windows, and readers for FASTA, GenBank and annotation files.

No module in this package imports torch.
"""
