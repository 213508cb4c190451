"""What programs and notebooks use, and what the command line is a face of; ``ofa_deploy`` offers all of it.

Nothing is imported here, so that each function loads only what it needs.
"""
