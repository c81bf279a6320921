"""How the bundled model is trained."""
