"""The command line: thin commands over batch.py and the library; torch loads in none but use."""


def main() -> None:
    """Entry point of the `semedit` script."""
    from .app import run

    run()
