"""The one place that says which Headstart this is."""

__version__ = "0.1.0"
