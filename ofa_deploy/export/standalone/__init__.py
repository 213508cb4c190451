"""Programs that travel in bundles as ``infer.py``: each runs a bundle's model with its runtime and Pillow alone."""
