"""Agreement with the official networks, under the same random weights."""

from __future__ import annotations

import math
from pathlib import Path

import golden
import pytest
import torch

from semedit import cameras, weights
from semedit.checkpoints import eg3d as eg3d_file
from semedit.checkpoints import gram as gram_file
from semedit.checkpoints import ide3d_encoder as ide3d_file
from semedit.checkpoints import stylegan2_keys as keys
from semedit.checkpoints import stylegan3 as stylegan3_file
from semedit.generators.stylegan2.e4e import E4E, E4EConfig
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config, widths
from semedit.generators.stylegan3.stylegan3 import StyleGAN3, StyleGAN3Config
from semedit.generators.surfaces.gram import GRAM, GRAMConfig
from semedit.generators.triplane.eg3d import EG3D, EG3DConfig
from semedit.generators.triplane.ide3d_encoder import HybridEncoder, HybridEncoderConfig
from semedit.runtime import torchvision_ops

C = torch.zeros(2, 25)  # StyleGAN2 without labels looks at none


@torch.no_grad()
def test_stylegan2_in_nvidias_form(shared: Path) -> None:
    facts = golden.read(shared, "nvlabs-stylegan2-256")
    generator = StyleGAN2(StyleGAN2Config(256, widths(256, facts.config["channel_base"])))
    weights.fill(generator, keys.from_nvidia(facts.state()), "golden")
    codes = generator.mapping(facts.input("z"), C, truncation_psi=0.7)
    facts.check("ws_psi0.7", codes["ws"])
    facts.check("image_const", generator.synthesis(codes, C).image)
    facts.check("image_none", generator.synthesis(codes, C, noise="none").image)
    moved = {"ws": codes["ws"] + facts.input("dw")}
    facts.check("image_wplus_const", generator.synthesis(moved, C).image)


@torch.no_grad()
def test_stylegan2_in_rosinalitys_form(shared: Path) -> None:
    facts = golden.read(shared, "rosinality-stylegan2-256")
    generator = StyleGAN2(StyleGAN2Config(256, widths(256)))
    tensors = keys.from_rosinality(facts.state())
    tensors["mapping_network.w_avg"] = torch.zeros(512)  # theirs is beside g_ema
    weights.fill(generator, tensors, "golden")
    codes = generator.mapping(facts.input("z"), C)
    facts.check("w", codes["ws"][:, 0])
    facts.check("image", generator.synthesis(codes, C).image)
    moved = {"ws": codes["ws"] + facts.input("dw")}
    facts.check("image_wplus", generator.synthesis(moved, C).image)


@pytest.mark.parametrize("kind", ["t", "r"])
@torch.no_grad()
def test_stylegan3(shared: Path, kind: str) -> None:
    facts = golden.read(shared, f"nvlabs-stylegan3-{kind}-256")
    state = facts.state()
    sizes = stylegan3_file.sizes(state)
    generator = StyleGAN3(StyleGAN3Config(**sizes, clamp=facts.config["conv_clamp"]))
    weights.fill(generator, stylegan3_file.renamed(state), "golden")
    stylegan3_file.check(generator.config, state)
    codes = generator.mapping(facts.input("z"), C[:1], truncation_psi=0.7)
    facts.check("ws_psi0.7", codes["ws"])
    facts.check("image", generator.synthesis(codes, C[:1]).image)
    moved = {"ws": codes["ws"] + facts.input("dw")}
    facts.check("image_wplus", generator.synthesis(moved, C[:1]).image)
    place = torch.tensor([[[0.1, -0.05, math.radians(20)]]])
    facts.check("image_transformed", generator.synthesis({**codes, "place": place}, C[:1]).image)


@torch.no_grad()
def test_e4es_encoder(shared: Path) -> None:
    facts = golden.read(shared, "e4e-encoder-1024")
    encoder = E4E(E4EConfig())
    tensors = facts.state() | {"mean": torch.zeros(18, 512)}  # the mean style is beside it
    weights.fill(encoder, tensors, "golden")
    image = facts.input("x")
    facts.check("codes", encoder.eval()(image, torch.zeros(1, 256, 256), C[:1]))


@torch.no_grad()
def test_eg3d(shared: Path) -> None:
    facts = golden.read(shared, "eg3d-512-64")
    generator = EG3D(EG3DConfig(neural=facts.config["neural_rendering_resolution"]))
    weights.fill(generator, eg3d_file.renamed(facts.state()), "golden")
    c = facts.input("c")
    codes = generator.mapping(facts.input("z"), c, truncation_psi=0.7)
    facts.check("ws_psi0.7", codes["ws"])
    planes = generator.planes(codes)
    facts.check("planes", planes["features"].permute(0, 1, 4, 2, 3).flatten(1, 2))
    output = generator.render(planes, c, place=0.0)
    assert output.low is not None and output.depth is not None
    facts.check("image_raw", output.low.image)
    facts.check("image_depth", output.depth, share=1e-3)
    facts.check("image", output.image, share=1e-3)


@torch.no_grad()
def test_gram(shared: Path) -> None:
    facts = golden.read(shared, "gram-64")
    sizes = gram_file.config(facts.state())
    generator = GRAM(GRAMConfig(**sizes | {"resolution": facts.config["img_size"]}))
    tensors = gram_file.renamed(facts.state()) | {"w_avg": torch.zeros(256)}
    weights.fill(generator, tensors, "golden")
    c = cameras.orbit(0.0, 0.0)
    codes = generator.mapping(facts.input("z"), c)
    planes = generator.planes(codes)
    facts.check("frequencies", ((planes["gamma"] - 30) / 15).flatten(1))
    facts.check("phase_shifts", planes["beta"].flatten(1))
    facts.check("o0", generator.render(planes, c).image, share=1e-3)


def test_arcface_has_the_published_names(shared: Path) -> None:
    """facexlib's network and e4e's body are the same IR-SE-50, whose names are golden."""
    torchvision_ops.ensure()
    from facexlib.recognition.arcface_arch import Backbone

    with torch.device("meta"):
        own = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").state_dict()
    body = golden.read(shared, "e4e-encoder-1024").facts["state"]
    published = {k: v["shape"] for k, v in body.items() if k.startswith(("input_layer.", "body."))}
    head = {k: list(v.shape) for k, v in own.items() if not k.startswith("output_layer.")}
    assert head == published
    assert list(own["output_layer.3.weight"].shape) == [512, 512 * 7 * 7]


@torch.no_grad()
def test_ide3ds_encoder(shared: Path) -> None:
    facts = golden.read(shared, "ide3d-hybrid-encoder")
    encoder = HybridEncoder(HybridEncoderConfig())
    tensors = ide3d_file.renamed(facts.state()) | {"mean": torch.zeros(18, 512)}
    weights.fill(encoder, tensors, "golden")
    facts.check("codes", encoder.offsets(facts.input("x"), facts.input("seg"))[0])
