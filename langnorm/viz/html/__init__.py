"""Pages of norms: one HTML file each, which loads nothing and talks to nobody."""
