"""Normalizing flows, all of them flowjax distributions."""
