"""Data sets as uint8 tensors in memory, their splits, and the order in which a step reads them."""
