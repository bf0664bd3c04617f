"""Ablations: variants of a config over paired seeds, trained in warm gangs and compared."""
