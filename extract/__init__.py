"""Stage one: video → features. Frozen backbones, no labels, no training."""
