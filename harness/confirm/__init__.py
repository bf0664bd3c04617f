"""The second stage of a search: its best configurations and the baseline again, with paired seeds."""
