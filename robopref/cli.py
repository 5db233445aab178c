"""The `robopref` command."""
def main() -> None:
    raise SystemExit(2)
