"""The desktop program, off-screen and with real widgets."""
