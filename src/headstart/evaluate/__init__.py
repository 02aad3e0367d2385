"""What a representation is worth: features, probes, geometry, and a watch over the training (paper 3.6)."""
