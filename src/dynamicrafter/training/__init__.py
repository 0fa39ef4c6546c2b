"""Training: the objective, as published. Loop and recipes build on it."""
