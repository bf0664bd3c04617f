"""Statistics of scores over seeds, images and trials. Pure: numpy and scipy alone."""
