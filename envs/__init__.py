"""Simulated robots and tasks. They enter by Hydra `_target_`; nothing in `robopref` imports them."""
