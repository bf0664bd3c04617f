"""Warm gangs: Ray Train runs that stay up and train one trial after another."""
