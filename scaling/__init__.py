"""One run: what it is, how it trains, what it costs. See the README for the whole path."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("scaling")
except PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0+unknown"
