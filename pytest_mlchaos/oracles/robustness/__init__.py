"""Attack models within a budget of perturbation, and judge their accuracy under attack."""
