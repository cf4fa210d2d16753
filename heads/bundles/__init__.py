"""Trained heads on disk."""
