"""The trajectory store, the preference sidecar, windows and batches, normalisation, exporters."""
