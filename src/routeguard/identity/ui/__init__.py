"""The identity service's own pages: server-rendered, usable without scripts, over the same services and policies."""
