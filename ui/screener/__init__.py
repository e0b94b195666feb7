"""The market list: every market with its live price."""
