"""The official IR-SDE, Refusion, DA-CLIP and MaRS code: their weights and their sampler."""
