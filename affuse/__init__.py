"""Continuous valence and arousal from video."""
