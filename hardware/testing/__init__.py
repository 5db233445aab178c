"""What tests, benchmarks and the demonstration need: the simulated arm, the real bridge, adversaries and faults."""
