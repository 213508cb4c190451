"""Runs a YAML pipeline stage by stage; what did not change is skipped.

Nothing is imported here: a question is read by commands that must start without what a pipeline runs on.
"""
