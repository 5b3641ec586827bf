"""One run: what it is, how it trains, what it costs. See the README for the whole path."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up only when asked for: it costs a sixth of the command line's start."""
    if name != "__version__":
        raise AttributeError(f"module 'scaling' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scaling")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
