"""Layer 1: one channel to the exchange; REST or WebSocket is its own choice."""
