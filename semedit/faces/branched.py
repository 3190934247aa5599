"""The attribute classifier of the paper: one network for CelebA's 40 attributes that branches.

`semedit train attributes` makes its weights; once they are among the user's (`semedit weights add
attributes FILE`), editors ask it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semedit import weights
from semedit.errors import WeightsError
from semedit.faces.layers import convolution, fit
from semedit.media.labels import CELEBA

WEIGHTS = "attributes"  # their name
# CelebA's mean and deviation of red, green and blue in [0,1].
MEAN, DEVIATION = (0.5061, 0.4254, 0.3828), (0.2661, 0.2453, 0.2413)

# branch -> sub-branch -> leaf -> attributes, in CelebA's words: what looks at one place shares
# more of the network.
TREE: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "face": {
        "features": {
            "eyes": (
                "arched_eyebrows",
                "bushy_eyebrows",
                "narrow_eyes",
                "bags_under_eyes",
                "eyeglasses",
            ),
            "mouth": ("smiling", "mouth_slightly_open", "high_cheekbones", "big_lips"),
            "beard": ("no_beard", "goatee", "mustache", "5_o_clock_shadow", "sideburns"),
            "shape": ("big_nose", "pointy_nose", "oval_face", "chubby", "double_chin"),
        },
        "person": {
            "made_up": (
                "wearing_lipstick",
                "heavy_makeup",
                "rosy_cheeks",
                "pale_skin",
                "attractive",
            ),
            "who": ("male", "young"),
            "picture": ("blurry",),
        },
    },
    "around": {
        "hair": {
            "colour": ("black_hair", "blond_hair", "brown_hair", "gray_hair"),
            "cut": ("bald", "bangs", "receding_hairline", "straight_hair", "wavy_hair"),
            "worn": (
                "wearing_hat",
                "wearing_earrings",
                "wearing_necklace",
                "wearing_necktie",
            ),
        },
    },
}


def _stage(inputs: int, width: int, layers: int, pools: Sequence[int]) -> nn.Sequential:
    """Convolutions of one width; the picture is halved after those numbered in `pools`."""
    parts: list[nn.Module] = []
    for i in range(layers):
        parts.append(convolution(inputs if i == 0 else width, width))
        if i in pools:
            parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts)


class BranchedNet(nn.Module):
    """VGG-16 with thin layers, which splits: six layers for all, five for either branch of TREE,
    one for each sub-branch, one and the classifier for each leaf.

    Source: Vandenhende et al. 2019, arXiv:1904.02920.
    Departs: the tree stands in TREE, by where attributes show, not found by measured affinity;
    batch normalisation.

    Args: names: attributes it tells, lower case; those that TREE lacks go to the leaf "who".
    """

    def __init__(
        self, names: Sequence[str] = CELEBA, size: int = 224, width: int = 32, hidden: int = 128
    ) -> None:
        super().__init__()
        self.names, self.size = tuple(names), size
        self.config = {"names": list(names), "size": size, "width": width, "hidden": hidden}
        self.trunk = _stage(3, width, 6, (1, 3))
        self.branches, self.twigs, self.leaves = (nn.ModuleDict() for _ in range(3))
        self.paths = leaf_paths(self.names)
        cells = (size // 2**5) ** 2
        for path, known in self.paths.items():
            branch, twig, _ = path.split("/")
            if branch not in self.branches:
                self.branches[branch] = _stage(width, width, 5, (0, 3))
            if twig not in self.twigs:
                self.twigs[twig] = _stage(width, width, 1, ())
            self.leaves[path.replace("/", "-")] = nn.Sequential(
                _stage(width, width, 1, (0,)),
                nn.Flatten(),
                nn.Linear(width * cells, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(hidden, len(known)),
            )
        order = [name for known in self.paths.values() for name in known]
        self.register_buffer("order", torch.tensor([order.index(n) for n in self.names]), False)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), False)
        self.order: Tensor
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [N,3,R,R] in [-1,1] -> logits [N, len(names)]."""
        shared = self.trunk(((fit(images, self.size) + 1) / 2 - self.mean) / self.deviation)
        seen: dict[str, Tensor] = {}
        logits = []
        for path in self.paths:
            branch, twig, _ = path.split("/")
            if branch not in seen:
                seen[branch] = self.branches[branch](shared)
            if twig not in seen:
                seen[twig] = self.twigs[twig](seen[branch])
            logits.append(self.leaves[path.replace("/", "-")](seen[twig]))
        return torch.cat(logits, 1)[:, self.order].float()


def leaf_paths(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """ "branch/twig/leaf" -> those of the names that it tells, leaves without any left out."""
    found: dict[str, tuple[str, ...]] = {}
    for branch, twigs in TREE.items():
        for twig, leaves in twigs.items():
            for leaf, attributes in leaves.items():
                own = [n for n in names if n in attributes]
                if leaf == "who":
                    own += [n for n in names if n not in CELEBA]
                if own:
                    found[f"{branch}/{twig}/{leaf}"] = tuple(own)
    return found


class Branched:
    """The branched network as what editors ask."""

    name = "branched"
    needs = (WEIGHTS,)

    def __init__(self, device: str = "cpu") -> None:
        tensors, metadata = weights.load(WEIGHTS)
        if metadata.get("kind") != WEIGHTS:
            raise WeightsError(f"{WEIGHTS} are no attribute classifier's weights")
        network = weights.built(lambda config: BranchedNet(**config), metadata, WEIGHTS)
        weights.fill(network, tensors, WEIGHTS)
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that it knows."""
        known: tuple[str, ...] = self.network.names
        return known

    def __call__(self, images: Tensor) -> Tensor:
        """Images float32 [N,3,R,R] in [-1,1] -> logits [N,A] in the order of `names`."""
        return self.network(images.to(self.device))
