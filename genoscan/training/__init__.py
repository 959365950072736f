"""Training of models on genomes, with the adjoint engine."""
