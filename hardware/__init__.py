"""Real arms. Robot-side modules start without torch; nothing in `robopref` imports this package."""
