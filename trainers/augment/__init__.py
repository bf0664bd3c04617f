"""Weak and strong augmentation of batches of images with their label, confidence and indicator maps."""
