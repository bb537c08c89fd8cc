"""The mean-reverting process: schedule, process, parameterization, denoiser, in that order."""
