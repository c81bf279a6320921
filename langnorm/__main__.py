"""`python -m langnorm` is the command `langnorm`."""

from langnorm.cli import app

if __name__ == "__main__":
    app()
