"""Files in, files out; no mathematics here."""
