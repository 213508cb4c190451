"""What models are fed with: random numbers, since zeros would meet shortcuts that real images do not."""

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import library


class Inputs:
    """Makes inputs; by equal seeds, equal models in equal order get equal inputs in every runtime."""

    def __init__(self, batch, seed):
        self._batch = batch
        self._random = library("numpy", "numpy", "pip install numpy").random.RandomState(seed)

    def make(self, name, shape):
        """One input, ``float32`` of the model's shape; an open first side becomes the batch.

        Raises:
            RuntimeRefused: another side is open, or the model is for another batch.
        """
        sides = list(shape)
        if sides and not isinstance(sides[0], int):
            sides[0] = self._batch
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise RuntimeRefused("input {} has the open shape {}".format(name, list(shape)), "malformed")
        if sides[:1] != [self._batch]:
            raise RuntimeRefused(
                "input {} is for batch {}, asked is {}".format(name, sides[:1], self._batch), "malformed"
            )
        return self._random.standard_normal(sides).astype("float32")
