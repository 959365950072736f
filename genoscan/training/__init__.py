"""From FASTA to a trained model, on the same engine."""
