"""Saying in a file that a trained model made or changed the picture.

    packet            the XMP packet, with IPTC's digital source type
    in_gif, in_mp4    put it where GIF and MP4 files have their XMP; Pillow and pyav do not
    sign              Content Credentials (C2PA) with the user's own certificate

PNG, JPEG and WebP take the packet while they are written (semedit.media.photographs).
"""

from __future__ import annotations

import os
from pathlib import Path

from semedit.errors import OptionError
from semedit.version import __version__

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
CERTIFICATE, KEY = "SEMEDIT_C2PA_CERT", "SEMEDIT_C2PA_KEY"  # environment: paths of PEM files

_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # the uuid of MP4's box for XMP


def packet() -> str:
    """XMP packet that marks a picture as edited by a trained model."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmp:CreatorTool="semedit {__version__}" Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def in_gif(data: bytes) -> bytes:
    """A GIF with the packet as XMP's application extension, behind the global colours.

    The packet is not cut into sub-blocks: it ends with a trailer by which a reader that takes it
    for sub-blocks comes out at its end, wherever it jumps to (XMP specification, part 3).
    """
    colours = data[10]
    start = 13 + (3 << (colours & 7) + 1 if colours & 0x80 else 0)
    trailer = bytes([1, *range(255, -1, -1), 0])
    extension = b"\x21\xff\x0bXMP DataXMP" + packet().encode() + trailer
    return data[:start] + extension + data[start:]


def in_mp4(data: bytes) -> bytes:
    """An MP4 with the packet in a box of its own at the end."""
    body = _XMP_BOX + packet().encode()
    return data + (8 + len(body)).to_bytes(4, "big") + b"uuid" + body


def signer_named() -> tuple[Path, Path] | None:
    """Certificate chain and private key that the user named, or None.

    Raises: OptionError: only one of them is named, or a file is not there.
    """
    named = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if named == (None, None):
        return None
    if not all(named):
        raise OptionError(f"{CERTIFICATE} and {KEY} belong together", "name both PEM files")
    certificate, key = (Path(os.path.expanduser(str(name))) for name in named)  # noqa: PTH111
    for path in (certificate, key):
        if not path.is_file():
            raise OptionError(f"no file at {path}", f"{CERTIFICATE} and {KEY} name PEM files")
    return certificate, key


def sign(path: Path, suffix: str) -> None:
    """Sign a finished file in place with the user's certificate, if there is one.

    Args:
        suffix: of the file's final name, which tells its format.

    Raises:
        OptionError: c2pa is not installed, or takes neither this certificate nor this format.
    """
    named = signer_named()
    if named is None:
        return
    try:
        import c2pa
    except ImportError as error:
        raise OptionError("c2pa is not installed", 'pip install "semedit[c2pa]"') from error
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
    manifest = {
        "claim_generator_info": [{"name": "semedit", "version": __version__}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    signed = path.with_name(f"{path.name}-signed{suffix}")
    certificate, key = (file.read_bytes() for file in named)
    try:
        info = c2pa.C2paSignerInfo(_algorithm(key), certificate, key, None)
        builder = c2pa.Builder(manifest)
        builder.sign_file(path, signed, c2pa.Signer.from_info(info))
        signed.replace(path)
    except c2pa.C2paError as error:
        raise OptionError(f"cannot sign with {named[0]}: {error}") from error
    finally:
        signed.unlink(missing_ok=True)


def _algorithm(key: bytes) -> str:
    """The signature algorithm that a private key is for, as C2PA names it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loaded = load_pem_private_key(key, None)
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        return {256: "es256", 384: "es384"}.get(loaded.curve.key_size, "es512")
    return "ps256"
