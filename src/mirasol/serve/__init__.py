"""A small HTTP and WebSocket service over one loaded engine."""
