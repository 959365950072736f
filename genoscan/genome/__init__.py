"""Where bases come from: FASTA, GenBank, BED and region strings.  No torch here."""
