"""Tracking: everything that reaches MLflow, from one thread in the driver, by way of a file."""
