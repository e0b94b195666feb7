"""Layer 3: large requests made of pages, and only of those that are missing."""
