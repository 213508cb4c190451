"""What a process that reads images needs, loaded once by the server that such processes are forked from."""

from contextlib import suppress

from ofa_deploy.training.torchvision_shim import torchvision_module

with suppress(Exception):  # would end the server; a process that needs it will say what is wrong
    torchvision_module("transforms.v2")
