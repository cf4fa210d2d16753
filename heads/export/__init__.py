"""Export a head and its base as one model file, from image to probabilities, and check that it predicts the same."""
