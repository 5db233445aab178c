"""Hydra presets, found as `pkg://robopref.conf` from any directory."""
