"""What the service knows of itself: latencies, counters, the event loop's lag."""
