"""What runs on a device: measures models for a server. Standard library only, Python 3.6 syntax."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
