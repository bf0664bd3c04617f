"""Trained models as things people use: found by name, evaluated, and kept in MLflow."""
