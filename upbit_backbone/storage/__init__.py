"""Layer 2: what is known, kept with the proof that it is known."""
