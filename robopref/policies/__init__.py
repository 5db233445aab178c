"""One file per policy head."""
