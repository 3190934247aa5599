"""`semedit eval heads`: every figure against rendered heads, whose truth is known exactly.

Heads come from the shipped set or are rendered fresh from reserved seeds; no training uses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from semedit import cameras, metrics
from semedit.editors import Fast, Mask
from semedit.editors.parts.attribute_regions import attribute_region
from semedit.errors import MaskError, OptionError
from semedit.faces.align import square_quad
from semedit.faces.attributes import Judge
from semedit.faces.estimates import estimates
from semedit.faces.landmarks import VIEW_DOWN, VIEW_SIDE, BuiltinLandmarks
from semedit.faces.networks import six, traits
from semedit.faces.parsing import BuiltinParser
from semedit.faces.pose import camera
from semedit.generators import judge, with_labels
from semedit.generators.contract import Generator
from semedit.heads.truth import Truth
from semedit.inverters import usual_for
from semedit.latents import Latent, picture, synthesize
from semedit.losses import changed, dilate, region
from semedit.media.labels import ATTRIBUTES
from semedit.media.pixels import resize, to_tensor

PARTS = ("faces", "inversion", "masks", "attributes")
KEYS = {
    "faces": ("parse_miou", "pose_mae_deg", "landmark_nme", "attribute_balanced_accuracy"),
    "inversion": (
        "inversion_psnr_db",
        "inversion_label_accuracy",
        "inversion_seconds",
        "novel_view_psnr_db",
        "turned_view_psnr_db",
    ),
    "masks": ("mask_edit_iou", "mask_edit_psnr_db", "mask_edit_outside_change"),
    "attributes": ("attr_success", "attr_outside_change"),
}
# Regions (labels.REGIONS) whose overlap says whether a mask edit came out as drawn.
EDIT_REGIONS = {
    "hair_length": ("hair",),
    "smile": ("mouth", "lips"),
    "glasses": ("glasses",),
    "nose": ("nose",),
}
FLIPS = (  # given where absent, taken away where present
    "smiling",
    "eyeglasses",
    "mouth_slightly_open",
    "wearing_lipstick",
    "bushy_eyebrows",
    "arched_eyebrows",
    "narrow_eyes",
    "big_nose",
)
COLOURS = ("black_hair", "blond_hair", "brown_hair", "gray_hair")  # only ever given

Progress = Callable[[str, int, int], None]  # part, done, in all


@dataclass(frozen=True)
class HeadsEvaluation:
    """What is evaluated, and by which methods.

    inputs    "estimates": inverters get the camera and label map that the built-in networks see,
              as a user's do; "truth": the true ones, so that their figures do not mix with those
              of pose and parsing
    edits     true edits tried per head, of heads.truth.EDITS in turn; 4 = all
    batch     faces inverted together
    inverter  None: that of `semedit invert`
    """

    parts: tuple[str, ...] = PARTS
    inputs: Literal["estimates", "truth"] = "estimates"
    edits: int = 1
    batch: int = 4
    inverter: Any = None
    mask_editor: Mask = field(default_factory=Mask)
    attribute_editor: Fast = field(default_factory=Fast)

    def __call__(
        self,
        truths: Sequence[Truth],
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> dict[str, float]:
        """Evaluate.

        Args:    truths: the heads. generator: needed by all parts but "faces".
        Returns: the figures of the parts asked for; their definitions are the docstrings of
                 `face_figures`, `inversion_figures`, `mask_figures` and `attribute_figures`.
        Raises:  OptionError: no heads, or an unknown part.
        """
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not truths:
            raise OptionError(
                f"there is no part {unknown[0]} to evaluate; parts: {', '.join(PARTS)}"
                if unknown
                else "there are no heads to evaluate"
            )
        tell = progress or (lambda part, done, total: None)
        figures: dict[str, float] = {}
        if "faces" in self.parts:
            figures |= face_figures(truths, tell)
        if set(self.parts) - {"faces"}:
            if generator is None:
                raise OptionError("there is no generator, and only `faces` needs none")
            device = generator.device
            generator = with_labels(generator, getattr(self.mask_editor, "parser", "auto"))
            heads = [at_resolution(truth, generator.resolution, device) for truth in truths]
            latents, seconds = self._invert(generator, heads, tell)
            if "inversion" in self.parts:
                figures |= inversion_figures(generator, heads, latents)
                figures["inversion_seconds"] = seconds
            if "masks" in self.parts:
                figures |= mask_figures(
                    generator, heads, latents, self.mask_editor, self.edits, tell
                )
            if "attributes" in self.parts:
                figures |= attribute_figures(generator, heads, latents, self.attribute_editor, tell)
        return {key: round(value, 4) for key, value in figures.items()}

    def _invert(
        self, generator: Generator, heads: Sequence[HeadAtSize], tell: Progress
    ) -> tuple[list[Latent], float]:
        """One latent a head, and the seconds a head it took (wall clock, batches of `batch`)."""
        found: list[Latent] = []
        inverter = self.inverter or usual_for(generator)
        began = time.perf_counter()
        for start in range(0, len(heads), self.batch):
            part = heads[start : start + self.batch]
            images = torch.cat([head.image for head in part])
            labels = torch.cat([head.labels for head in part])
            c = torch.cat([head.c for head in part])
            if self.inputs == "estimates":
                labels, c = estimates(images)
            latent = inverter(generator, images, labels, c)
            found.extend(latent[i] for i in range(len(latent)))
            tell("inversion", len(found), len(heads))
        return found, (time.perf_counter() - began) / len(heads)


@dataclass(frozen=True, eq=False)
class HeadAtSize:
    """A head at a generator's resolution: image [1,3,R,R], labels [1,R,R], c [1,25].

    views: (c, image) pairs; edits: kind -> (image, labels).
    """

    truth: Truth
    image: Tensor
    labels: Tensor
    c: Tensor
    views: tuple[tuple[Tensor, Tensor], ...]
    edits: dict[str, tuple[Tensor, Tensor]]


def at_resolution(truth: Truth, size: int, device: torch.device | str = "cpu") -> HeadAtSize:
    """The head at `size` px: pictures averaged, labels sampled at the middle of each block."""

    def image(pixels: np.ndarray) -> Tensor:
        return resize(to_tensor(pixels), size).to(device)

    def labels(ids: np.ndarray) -> Tensor:
        rows = ((np.arange(size) + 0.5) * len(ids) / size).astype(int)
        return torch.from_numpy(ids[np.ix_(rows, rows)].astype(np.int64))[None].to(device)

    def label(c: np.ndarray) -> Tensor:
        return torch.from_numpy(c)[None].to(device)

    return HeadAtSize(
        truth=truth,
        image=image(truth.image),
        labels=labels(truth.labels),
        c=label(truth.c),
        views=tuple((label(c), image(pixels)) for c, pixels in truth.views),
        edits={kind: (image(i), labels(x)) for kind, (i, x) in truth.edits.items()},
    )


# --- the face networks -----------------------------------------------------------------------


def face_figures(truths: Sequence[Truth], tell: Progress) -> dict[str, float]:
    """The built-in face networks on the heads' pictures, at the pictures' own size.

    parse_miou                   mean IoU over the classes present in the set's truth, from one
                                 confusion matrix over all pixels of the set
    pose_mae_deg                 mean absolute error over yaw, pitch and roll, degrees
    landmark_nme                 mean distance of the 68 landmarks over the true distance of the
                                 outer eye corners; the network starts from a square that is off
                                 the face by up to 8 % of the crop's side and 12 % in size, as a
                                 detector's is
    attribute_balanced_accuracy  mean over attributes of (true positive rate + true negative
                                 rate) / 2; attributes of which the set has one side only are
                                 left out
    """
    landmarks = BuiltinLandmarks()
    counts = torch.zeros(19, 19, dtype=torch.long)
    pose, points, found = [], [], []
    for i, truth in enumerate(truths):
        image = to_tensor(truth.image)
        labels = BuiltinParser()(image).argmax(1)
        counts += metrics.confusion(labels, torch.from_numpy(truth.labels.astype(np.int64))[None])
        true_c = torch.from_numpy(truth.c)[None]
        pose.append(metrics.pose_error(cameras.angles(camera(six(image))), cameras.angles(true_c)))
        placed = landmarks(truth.image, [proposal(truth)]).points
        true_points = torch.from_numpy(truth.landmarks)[None]
        points.append(metrics.landmark_error(torch.from_numpy(placed), true_points))
        found.append(traits(image)[0] > 0)
        tell("faces", i + 1, len(truths))
    true = torch.from_numpy(np.stack([truth.attributes for truth in truths])).bool()
    accuracy = metrics.balanced_accuracy(torch.stack(found), true)
    return {
        "parse_miou": metrics.mean_iou(counts),
        "pose_mae_deg": float(torch.cat(pose).mean()),
        "landmark_nme": float(torch.cat(points).mean()),
        "attribute_balanced_accuracy": float(accuracy.nanmean()),
    }


def proposal(truth: Truth) -> np.ndarray:
    """A square about the face [4,2], px, off as a detector's is; the head's seed says how."""
    side = float(len(truth.image))
    shift_x, shift_y, scale = np.random.default_rng([truth.seed, 7]).uniform(-1, 1, 3)
    centre = side * np.array([0.5 + 0.08 * shift_x, 0.5 + VIEW_DOWN + 0.08 * shift_y])
    return square_quad(centre, VIEW_SIDE * side * (1 + 0.12 * scale))


# --- inversion -------------------------------------------------------------------------------


@torch.no_grad()
def inversion_figures(
    generator: Generator, heads: Sequence[HeadAtSize], latents: Sequence[Latent]
) -> dict[str, float]:
    """Inverted heads against what they were inverted from, and against views never seen.

    inversion_psnr_db         mean PSNR of the inversion against the picture, at the generator's
                              resolution
    inversion_label_accuracy  share of pixels whose label, by the generator, is the true one
    novel_view_psnr_db        mean PSNR of the inverted head seen at yaw -25 and +25 degrees
                              against the true views there; their true cameras are given;
                              of generators that know cameras
    turned_view_psnr_db       the same, turned as far from the latent's own camera as the true view
                              is from the picture's: what a turntable shows, whose front is that of
                              the estimate
    inversion_seconds         (added by the caller) wall clock a head, all of the inverter
    """
    turns = "camera" in generator.traits
    psnr, right, novel, turned = [], [], [], []
    for head, latent in zip(heads, latents, strict=True):
        output = synthesize(generator, latent)
        psnr.append(metrics.psnr(output.image, head.image))
        right.append(metrics.label_accuracy(_labels(output, head), head.labels))
        for c, image in head.views if turns else ():
            there = cameras.carried(c, head.c, latent.c)
            novel.append(metrics.psnr(synthesize(generator, latent, c).image, image))
            turned.append(metrics.psnr(synthesize(generator, latent, there).image, image))
    seen = {
        name: float(torch.cat(values).mean())
        for name, values in (("novel_view_psnr_db", novel), ("turned_view_psnr_db", turned))
        if turns
    }
    return {
        "inversion_psnr_db": float(torch.cat(psnr).mean()),
        "inversion_label_accuracy": float(torch.cat(right).mean()),
        **seen,
    }


def _labels(output: Any, head: HeadAtSize) -> Tensor:
    return resize(output.seg, head.labels.shape[-1]).argmax(1)


# --- mask edits ------------------------------------------------------------------------------


def mask_edits(heads: Sequence[HeadAtSize], each: int) -> Iterator[tuple[int, str]]:
    """(index of the head, kind of edit): `each` kinds a head, in turn, that change its map."""
    for i, head in enumerate(heads):
        kinds = [k for k, (_, x) in head.edits.items() if bool((x != head.labels).any())]
        for k in range(min(each, len(kinds))):
            yield i, kinds[(i + k) % len(kinds)]


def mask_figures(
    generator: Generator,
    heads: Sequence[HeadAtSize],
    latents: Sequence[Latent],
    editor: Callable[..., Latent],
    each: int,
    tell: Progress,
) -> dict[str, float]:
    """Edits by the label maps of the truly edited heads.

    The editor gets the head's true map and that of the head with hair length, smile, glasses or
    nose truly changed; what it makes is compared with the true picture of the changed head.

    mask_edit_iou             IoU of the edited thing (hair; mouth and lips; glasses; nose) between
                              the true edited map and what a parser (generators.judge) sees in the
                              edited picture; where the thing was taken away, the share of the
                              drawn region that is free of it; of generators that draw labels the
                              editor asks the same network in one view (Mask.parse_weight), so
                              this says that the drawn labels show, and mask_edit_psnr_db whether
                              they look right
    mask_edit_psnr_db         PSNR of the whole edited picture against the true one
    mask_edit_outside_change  mean absolute change against the face's own inversion, outside the
                              drawn region widened by 2 % of the side, as a share of the range;
                              where the editor keeps those pixels by a composite, this says that it
                              does
    """
    parser = judge(generator)
    iou, psnr, outside = [], [], []
    plan = list(mask_edits(heads, each))
    for done, (i, kind) in enumerate(plan):
        head, latent = heads[i], latents[i]
        true_image, true_labels = head.edits[kind]
        try:
            after = editor(generator, latent, true_labels, head.labels)
        except MaskError:
            continue
        with torch.no_grad():
            before, shown = picture(generator, latent).image, picture(generator, after).image
        near = dilate(changed(head.labels, true_labels), round(0.02 * generator.resolution))
        seen = parser(shown.clamp(-1, 1)).argmax(1).to(shown.device)
        names = EDIT_REGIONS[kind]
        iou.append(edit_iou(region(seen, names), region(true_labels, names), near))
        psnr.append(metrics.psnr(shown, true_image))
        outside.append(metrics.mean_change(shown, before, 1 - near))
        tell("masks", done + 1, len(plan))
    return {
        "mask_edit_iou": float(torch.cat(iou).mean()),
        "mask_edit_psnr_db": float(torch.cat(psnr).mean()),
        "mask_edit_outside_change": float(torch.cat(outside).mean()),
    }


def edit_iou(seen: Tensor, wanted: Tensor, drawn: Tensor) -> Tensor:
    """Overlap [1] of a thing seen and wanted; if taken away, how much of `drawn` is free of it."""
    if bool(wanted.any()):
        return metrics.region_iou(seen, wanted)
    return 1 - (seen * drawn).flatten(1).sum(1) / drawn.flatten(1).sum(1)


# --- attribute edits -------------------------------------------------------------------------


def flip(truth: Truth) -> dict[str, bool]:
    """One attribute to change on a head, chosen by its seed: of FLIPS, to the other side, or,
    with hair to be seen, a hair colour that it has not.
    """
    has = dict(zip(ATTRIBUTES, truth.attributes.tolist(), strict=True))
    options = {name: not has[name] for name in FLIPS}
    if not has["bald"] and not has["wearing_hat"]:
        options |= {name: True for name in COLOURS if not has[name]}
    names = sorted(options)
    name = names[int(np.random.default_rng([truth.seed, 11]).integers(len(names)))]
    return {name: options[name]}


def attribute_figures(
    generator: Generator,
    heads: Sequence[HeadAtSize],
    latents: Sequence[Latent],
    editor: Fast,
    tell: Progress,
) -> dict[str, float]:
    """One attribute of each head turned round (`flip`).

    attr_success         share of edited pictures in which the judge, a network that no editor ever
                         uses, sees the attribute as wanted
    attr_outside_change  mean absolute change against the face's own inversion outside the
                         attribute's region (ATTRIBUTE_REGIONS on the true map), as a share of the
                         range; where the editor keeps those pixels by a composite,
                         this says that it does
    """
    judge = Judge()
    success, outside = [], []
    for i, (head, latent) in enumerate(zip(heads, latents, strict=True)):
        wanted = flip(head.truth)
        after = editor(generator, latent, wanted, head.labels)
        with torch.no_grad():
            before, shown = picture(generator, latent).image, picture(generator, after).image
            logits = judge(shown.clamp(-1, 1))[0]
        success.append(all((logits[ATTRIBUTES.index(k)] > 0) == yes for k, yes in wanted.items()))
        where = attribute_region(head.labels, wanted)
        outside.append(metrics.mean_change(shown, before, 1 - where))
        tell("attributes", i + 1, len(heads))
    return {
        "attr_success": sum(success) / len(success),
        "attr_outside_change": float(torch.cat(outside).mean()),
    }


__all__ = ["KEYS", "PARTS", "HeadsEvaluation"]
