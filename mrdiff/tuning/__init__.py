"""Samplers fitted to a model: times of the calls, spectra, the sampler in a checkpoint."""
