"""Probes: what norms mean in a model, by sparse autoencoders, causal checks and a first diagnosis."""
