"""Speed measured against a named peer, in one run, as a ratio."""
