"""Inference: priors, likelihoods, samplers."""
