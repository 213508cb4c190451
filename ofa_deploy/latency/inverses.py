"""Inverses of networks' covariances, several at once.

Both classes take a root ``[G, K, M]``: the covariance is ``root @ rootᵀ``, with a diagonal added.
"""

from __future__ import annotations

import numpy as np


class Full:
    """Inverts the ``[K, K]`` matrices themselves."""

    def __init__(self, root: np.ndarray, added: np.ndarray, bare: np.ndarray | None = None) -> None:
        """Invert.

        Args:
            added: ``[G, K]``, the diagonals.
            bare: ``root @ rootᵀ`` where it is known.
        """
        self._root, self._bare = root, root @ root.transpose(0, 2, 1) if bare is None else bare
        self._total = _plus_diagonal(self._bare.copy(), added)
        self.matrix = np.linalg.inv(self._total)

    def again(self, added: np.ndarray) -> Full:
        """With other diagonals."""
        return Full(self._root, added, self._bare)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """The inverses' products with a vector ``[K]``: ``[G, K]``."""
        return np.asarray(self.matrix @ vector)

    @property
    def diagonal(self) -> np.ndarray:
        """Of the inverses, ``[G, K]``."""
        return np.einsum("gkk->gk", self.matrix)

    @property
    def logdet(self) -> np.ndarray:
        """Of what was inverted, ``[G]``."""
        return np.linalg.slogdet(self._total)[1]


class Thin:
    """The same for many networks of few columns: inverts ``[M, M]`` matrices (Woodbury)."""

    def __init__(self, root: np.ndarray, added: np.ndarray) -> None:
        self._root, self._added = root, added
        self._scaled = root / added[:, :, None]
        self._inner = _plus_diagonal(root.transpose(0, 2, 1) @ self._scaled, 1.0)
        self._projected = self._scaled @ np.linalg.inv(self._inner)

    def again(self, added: np.ndarray) -> Thin:
        """With other diagonals."""
        return Thin(self._root, added)

    @property
    def matrix(self) -> np.ndarray:
        """The inverses, ``[G, K, K]``."""
        return _plus_diagonal(-self._projected @ self._scaled.transpose(0, 2, 1), 1 / self._added)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """The inverses' products with a vector ``[K]``: ``[G, K]``."""
        inner = (vector @ self._scaled)[:, :, None]
        return np.asarray(vector / self._added - (self._projected @ inner)[:, :, 0])

    @property
    def diagonal(self) -> np.ndarray:
        """Of the inverses, ``[G, K]``."""
        return np.asarray(1 / self._added - np.einsum("gkm,gkm->gk", self._projected, self._scaled))

    @property
    def logdet(self) -> np.ndarray:
        """Of what was inverted, ``[G]``."""
        return np.linalg.slogdet(self._inner)[1] + np.log(self._added).sum(1)


Inverse = Full | Thin


def invert(root: np.ndarray, added: np.ndarray) -> Inverse:
    """The cheaper of the two."""
    return Thin(root, added) if 2 * root.shape[2] < root.shape[1] else Full(root, added)


def _plus_diagonal(matrices: np.ndarray, values: np.ndarray | float) -> np.ndarray:
    places = np.arange(matrices.shape[1])
    matrices[:, places, places] += values
    return matrices
