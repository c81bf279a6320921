"""Pictures of norms: tables for the terminal."""
