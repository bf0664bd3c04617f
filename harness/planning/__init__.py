"""Plans: the cost of a training or a search before it runs."""
