"""Keys, signatures and tokens of JSON Object Signing and Encryption (RFC 7515, 7517, 7519), free of any store."""
