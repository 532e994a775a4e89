"""One-time tickets for WebSockets of clients that can send neither a cookie nor a header field."""
