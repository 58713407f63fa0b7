"""Heads applied to whole sections: probabilities, smoothing, label maps."""
