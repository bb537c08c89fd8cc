"""Faster ways to run a network: compilers, OpenVINO, 8-bit convolutions."""
