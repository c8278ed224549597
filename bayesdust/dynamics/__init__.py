"""Dynamics: from densities and potentials to velocities."""
