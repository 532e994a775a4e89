"""HTTP message signatures (RFC 9421) with the body covered (RFC 9530)."""
