"""Networks: an encoder with a segmentation head and a representation head."""
