"""Pure functions of scores: one value per pair, `(B,) -> (B,)`."""
