"""Our own HTTP glue on Starlette: bodies in, answers out, routes that carry their policy, pages."""
