"""The identity service's own pages: server-rendered, without scripts, over the same services and policies."""
