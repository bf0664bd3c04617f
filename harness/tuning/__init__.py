"""A search: Tune's loop over warm gangs, with a searcher that tells Optuna the truth."""
