"""The metric `harmonic_mean`."""
