"""Semi-supervised semantic segmentation (S4) trainers. Knows nothing of clusters, searches or tracking."""
