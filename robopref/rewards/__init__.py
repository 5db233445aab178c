"""One file per reward learner."""
