"""Routers, one file per method or family, which map token representations to a Routing; registered in
`scaling/config/registry.py`."""
