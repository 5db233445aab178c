"""How a policy gets better: each learner is a generator of logs."""
