"""What every inverter offers."""

from __future__ import annotations

from typing import Any, ClassVar


class Inverter:
    """Finds the codes of aligned faces; its fields are its options.

    Attributes:
        requires: traits of the generator.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """(generator, images [N,3,R,R], labels [N,R,R], c [N,25], progress) -> Latent."""
        raise NotImplementedError

    def weights_of(self, generator: str) -> tuple[str, ...]:
        """Names of the weights that it reads besides those of a generator, given by name."""
        return ()
