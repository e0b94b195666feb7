"""The monitoring dock: how the service is doing, in figures and lights."""
