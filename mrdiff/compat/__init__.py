"""Other implementations, reproduced exactly for comparison; nothing else here depends on them."""
