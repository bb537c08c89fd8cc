"""Networks made fast for one sampling run, with equal results."""
