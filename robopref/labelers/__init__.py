"""Who says which trajectory is better."""
