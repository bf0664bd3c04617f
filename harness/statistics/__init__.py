"""What scores over seeds, images and trials allow to be said, and what they do not. Pure: numpy and scipy alone."""
