"""Trained models: by the words that name them, and their evaluations."""
