"""Train one once-for-all supernet, measure real devices, and ship each the subnet that fits its latency budget."""

__version__ = "0.1.0"
