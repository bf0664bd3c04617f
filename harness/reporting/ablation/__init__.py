"""The report of an ablation, a module a section: what differs, what of it chance explains, where it lies."""
