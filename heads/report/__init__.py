"""What was trained and predicted, for people."""
