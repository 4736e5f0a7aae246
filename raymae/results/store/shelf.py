"""A folder of weights: of each network a file of tensors, and a card that says what it is and proves it whole.

Encoders and models are kept in this way. Whoever only reads cards needs no torch.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable

from raymae.errors import RayMAEError
from raymae.results.store import layout
from raymae.results.store.folder import Folder

RETRIES_S = (0.5, 2.0, 5.0)
PATIENCE_S = (0.5, 2.0, 5.0, 15.0, 30.0, 60.0)  # between tries to write what cannot be had again cheaply


def stubbornly(write: Callable[[], None], waits_s: Iterable[float] = RETRIES_S) -> None:
    """Write what must not be lost, again and again where the storage fails.

    Args:
        write: Writes it; doing so twice does no harm.
        waits_s: Seconds before each further try.

    Raises:
        OSError: The storage kept failing.
    """
    for wait_s in waits_s:
        try:
            return write()
        except OSError:
            time.sleep(wait_s)
    return write()


class Shelf:
    """A folder of weights and their cards, local or on an object store.

    The weights are written first, and the card last: where there is a card, the file of weights is whole, and
    `whole` proves it. Whoever makes one once more writes the same bits, so two at once do each other no harm.

    Args:
        root: The folder, a path or a URI.
    """

    def __init__(self, root: str) -> None:
        self._folder = Folder(root)
        # as another process finds it, whatever folder that runs in
        self.root = root if self._folder.local is None else str(self._folder.local)

    def ids(self) -> set[str]:
        """Names of what is there; none where the folder cannot be read."""
        try:
            return {name for file in self._folder.names() if (name := layout.named_by_card(file)) is not None}
        except OSError:
            return set()

    def where(self, name: str) -> str:
        """A file of weights, for messages."""
        return self._folder.uri(layout.weights(name))

    def put(self, name: str, weights: bytes, card: bytes, waits_s: Iterable[float] = PATIENCE_S) -> None:
        """Write both files, again and again where the storage fails.

        Args:
            name: Whose they are.
            weights: The file of weights.
            card: Its card.
            waits_s: Seconds before each further try.

        Raises:
            OSError: The storage kept failing.
        """
        def write() -> None:
            self._folder.make()
            self._folder.write(layout.weights(name), weights)
            self._folder.write(layout.card(name), card)

        stubbornly(write, waits_s)

    def whole(self, name: str, sha256: str, num_bytes: int, error: type[RayMAEError]) -> bytes:
        """Read a file of weights that is what its card says.

        Args:
            name: Whose it is.
            sha256: What the card says.
            num_bytes: Likewise; a file of another size is not read.
            error: What to raise.

        Raises:
            RayMAEError: It cannot be read, or is another file.
        """
        where = self.where(name)
        try:
            size = self._folder.size(layout.weights(name))
            data = self._folder.read(layout.weights(name)) if size == num_bytes else b""
        except OSError as failure:
            raise error(f"{where}: cannot be read: {failure}") from None
        if size != num_bytes or hashlib.sha256(data).hexdigest() != sha256:
            raise error(f"{where}: damaged: {size:,} bytes that are not the {num_bytes:,} of its card")
        return data
