"""Genomes, regions and windows, and readers for FASTA, GenBank, annotation and BED files.

This package does not import torch.
"""
