"""Routers, one file a method or a family: token representations to a Routing. Their registry is
`scaling/config/registry.py`."""
