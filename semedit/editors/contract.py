"""What an editor declares, so that the command line and the folder loop can offer it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Way = Literal[
    "direction", "mask", "drawing", "attributes", "transfer", "texture", "region", "place"
]


class Editor:
    """Base of the editors: frozen dataclasses whose fields are their options.

    Called as editor(generator, latent, NAME=..., progress=...) with what it takes, N faces each:

        edited   int64 [N,R,R]: the drawn label map      labels   int64 [N,R,R]: the face's own map
        wanted   attribute -> bool                       donor    Latent of one face
        image    float32 [N,3,R,R]: the photograph

    Editors of the way "drawing" begin with a label map and no latent, those of the way "region"
    with pictures instead of latents.

    Attributes:
        way: how a user asks for it: `edit --direction`, `edit --mask`, `edit --mask --from none`,
            `attr`, `edit --transfer-from`, `edit --texture-from`, `edit --region`,
            `edit --shift` and `--rotate`. Of several
            editors of one way the first that suits the generator is the default.
        takes: names of the above that it is called with.
        requires: traits of the generator.
    """

    way: ClassVar[Way]
    takes: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Edit; see the class."""
        raise NotImplementedError

    def weights_of(self, generator: str) -> tuple[str, ...]:
        """Names of the weights that it reads besides those of a generator, given by name."""
        return ()

    @property
    def looks_at(self) -> tuple[str, ...]:
        """What it takes under its options; the photograph only where it keeps to it."""
        return self.takes
