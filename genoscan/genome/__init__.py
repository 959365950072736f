"""Genome files, regions and windows: FASTA, GenBank, BED, region strings.  No torch here."""
