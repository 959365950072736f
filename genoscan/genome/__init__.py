"""Genome files, regions and windows: FASTA, GenBank, BED and region strings. Does not import torch."""
