"""Photos of any size through a trained model: Restorer, tiles, ensembles, features."""
