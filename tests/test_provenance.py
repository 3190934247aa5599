"""Edited files say that they are: XMP where each format has it, Content Credentials, --no-mark."""

import datetime
import io
import sys

import numpy as np
import pytest
from PIL import Image

from semedit.errors import OptionError
from semedit.media import provenance
from semedit.media.photographs import write_image
from semedit.renders import write_animation

MARK = b"compositeWithTrainedAlgorithmicMedia"
FRAMES = np.random.default_rng(0).integers(0, 255, (4, 33, 31, 3)).astype(np.uint8)


def box(data, kind):
    """The body of an MP4's top-level box."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == kind:
            return data[at + 8 : at + size]
        at += size
    raise AssertionError(f"no {kind} in the file, which ends at {at}")


def application_extensions(data):
    """name -> raw bytes behind it, of a GIF, found as a decoder finds them."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    found = {}
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            packed = data[at + 9]
            at += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        elif data[at + 1] == 0xFF:
            found[data[at + 3 : at + 14]] = data[at + 14 :]
            at += 2
        else:
            at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return found


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_pictures_are_marked_where_readers_look(tmp_path, suffix):
    for mark in (True, False):
        path = tmp_path / f"{mark}{suffix}"
        write_image(path, FRAMES[0], mark=mark)
        assert (MARK in path.read_bytes()) == mark
        with Image.open(path) as image:
            xmp = image.info.get("xmp", image.info.get("XML:com.adobe.xmp", b""))
            xmp = xmp.encode() if isinstance(xmp, str) else xmp
            assert (MARK in xmp) == mark
            assert not dict(image.getexif())


def test_gif_keeps_its_frames_and_has_its_xmp(tmp_path):
    write_animation(tmp_path / "a.gif", FRAMES, mark=True)
    write_animation(tmp_path / "b.gif", FRAMES, mark=False)
    marked, plain = ((tmp_path / name).read_bytes() for name in ("a.gif", "b.gif"))
    assert MARK not in plain and provenance.in_gif(plain) == marked
    body = application_extensions(marked)[b"XMP DataXMP"]
    assert body.startswith(provenance.packet().encode())
    with Image.open(io.BytesIO(marked)) as a, Image.open(io.BytesIO(plain)) as b:
        assert a.n_frames == b.n_frames == 4 and a.info["loop"] == 0
        for i in range(4):
            a.seek(i)
            b.seek(i)
            assert (np.asarray(a.convert("RGB")) == np.asarray(b.convert("RGB"))).all()


def test_mp4_has_a_box_of_xmp_and_still_plays(tmp_path):
    import imageio.v3 as iio

    write_animation(tmp_path / "a.mp4", FRAMES, mark=True)
    write_animation(tmp_path / "b.mp4", FRAMES, mark=False)
    marked, plain = ((tmp_path / name).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert MARK not in plain and marked == provenance.in_mp4(plain)
    assert box(marked, b"uuid")[16:] == provenance.packet().encode()
    assert len(iio.imread(marked, plugin="pyav", extension=".mp4")) == 4


def test_webp_animations_are_marked(tmp_path):
    for mark in (True, False):
        write_animation(tmp_path / "a.webp", FRAMES, mark=mark)
        with Image.open(tmp_path / "a.webp") as image:
            assert (MARK in image.info.get("xmp", b"")) == mark


# Content Credentials -----------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """A chain of two certificates made here, named as the user would."""
    pytest.importorskip("c2pa", reason="needs the extra semedit[c2pa]")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    no = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        False,
    )  # fmt: skip
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def named(name):
        parts = ((NameOID.ORGANIZATION_NAME, "Test"), (NameOID.COMMON_NAME, name))
        return x509.Name([x509.NameAttribute(*part) for part in parts])

    def made(name, own, usage, *more):
        builder = (
            x509.CertificateBuilder(named("Root"), named(name), own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=name == "Root", path_length=None), True)
            .add_extension(x509.KeyUsage(**{**no, **usage}), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False
            )
        )
        for extension in more:
            builder = builder.add_extension(extension, True)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    signing = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    leaf = made("Signer", key, {"digital_signature": True}, signing)
    root = made("Root", authority, {"key_cert_sign": True, "crl_sign": True})
    (tmp_path / "chain.pem").write_bytes(leaf + root)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    monkeypatch.setenv(provenance.CERTIFICATE, str(tmp_path / "chain.pem"))
    monkeypatch.setenv(provenance.KEY, str(tmp_path / "key.pem"))
    return tmp_path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.mp4"])
def test_marked_files_are_signed(certificate, name):
    import c2pa

    path = certificate / name
    if name.endswith(("gif", "mp4")):
        write_animation(path, FRAMES)
    else:
        write_image(path, FRAMES[0])
    told = c2pa.Reader(str(path)).json()
    assert '"common_name": "Signer"' in told and MARK.decode() in told
    assert MARK in path.read_bytes() and not list(certificate.glob("*-signed*"))


def test_what_is_not_marked_is_not_signed(certificate):
    import c2pa

    write_image(certificate / "a.png", FRAMES[0], mark=False)
    with pytest.raises(c2pa.C2paError):
        c2pa.Reader(str(certificate / "a.png"))


def test_wrong_certificates_are_told(certificate, monkeypatch):
    (certificate / "chain.pem").write_text("no certificate")
    with pytest.raises(OptionError, match="cannot sign"):
        write_image(certificate / "a.png", FRAMES[0])
    monkeypatch.delenv(provenance.KEY)
    with pytest.raises(OptionError, match="belong together"):
        write_image(certificate / "a.png", FRAMES[0])
    monkeypatch.setenv(provenance.KEY, str(certificate / "none.pem"))
    with pytest.raises(OptionError, match=r"none\.pem"):
        write_image(certificate / "a.png", FRAMES[0])
    assert not (certificate / "a.png").exists() and not list(certificate.glob(".tmp-*"))


def test_signing_says_what_to_install(tmp_path, monkeypatch):
    for variable in (provenance.CERTIFICATE, provenance.KEY):
        (tmp_path / "x.pem").write_text("x")
        monkeypatch.setenv(variable, str(tmp_path / "x.pem"))
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(OptionError, match=r"semedit\[c2pa\]"):
        write_image(tmp_path / "a.png", FRAMES[0])
