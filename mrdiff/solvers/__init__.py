"""MR Sampler and its peers: clock, multistep, sampler, in that order; grids and noise apart."""
