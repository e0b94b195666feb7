"""The desktop program: Qt widgets over the service."""
