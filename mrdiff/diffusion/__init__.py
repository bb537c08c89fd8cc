"""Paths from clean to degraded, what a network predicts on them, and the denoiser of both."""
