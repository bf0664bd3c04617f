"""How training scales with workers: measured, fitted, predicted; and how long a search takes, simulated."""
