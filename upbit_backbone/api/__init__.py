"""Layer 4: the calls that programs make."""
