"""What acts on norms: pure decisions over the rows of a batch, with torch and nothing else."""
