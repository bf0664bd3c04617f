"""Trainers for semi-supervised semantic segmentation (S4), without clusters, searches or tracking."""
