"""Normalizing flows: densities with exact gradients, each a flowjax distribution."""
