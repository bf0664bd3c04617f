"""Search, scale and ablate the trainers with Ray Train, Ray Tune, Optuna and MLflow."""
