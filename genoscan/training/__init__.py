"""Training of models on genomes, with gradients that the engine computes."""
