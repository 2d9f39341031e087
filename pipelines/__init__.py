"""Recipes that join the two stages: extract a folder, predict on new videos, data sets, the demonstration."""
