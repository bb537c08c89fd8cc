"""Checkpoints of the official code of IR-SDE, Refusion and DA-CLIP, made into ours."""
