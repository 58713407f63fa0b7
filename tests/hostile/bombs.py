"""Small files that would inflate to gigabytes, and files that are no images at all."""

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np

GIB = 1 << 30


@cache
def deflate(nbytes: int, first: bytes = b"") -> bytes:
    """Deflated bytes, then zeros by 16 MiB at a time, without the checksum at the end."""
    block = bytes(16 << 20)
    packer = zlib.compressobj(9)
    start = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = [packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)][1]
    return start + zeros * (nbytes >> 24)


def deflated_image(nbytes: int, first: bytes) -> bytes:
    """A whole zlib stream of some bytes and zeros, its checksum included."""
    low, high = zlib.adler32(first) & 0xFFFF, zlib.adler32(first) >> 16
    checksum = ((high + nbytes * low) % 65521) << 16 | low
    return deflate(nbytes, first) + zlib.compressobj(9, zlib.DEFLATED, -15).flush() + struct.pack(">I", checksum)


def gzipped(nbytes: int) -> bytes:
    """A gzip member without its end."""
    return gzip.compress(b"")[:10] + deflate(nbytes)[2:]


def zstd(nbytes: int, stated: int | None, first: bytes = b"") -> bytes:
    """A zstd frame of some bytes, then zeros in blocks of 128 KiB, each of 4 bytes; it states any size, or none."""
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x58" if stated is None else b"\xc0\x58" + struct.pack("<Q", stated))
    block = (128 << 10) << 3 | 1 << 1
    start = (len(first) << 3).to_bytes(3, "little") + first
    return head + start + (block.to_bytes(3, "little") + b"\0") * (nbytes >> 17) + (1).to_bytes(3, "little")


def lzw(nbytes: int, first: bytes) -> bytes:
    return bytes(imagecodecs.lzw_encode(first + bytes(nbytes)))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(height: int, width: int, data: bytes, *chunks: tuple[bytes, bytes], colour: int = 0, bits: int = 8) -> bytes:
    """A PNG of any stated size (colour 0: grey, 2: RGB, 3: palette) around deflated rows."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, content) for name, content in parts)


def png_rows(pixels: np.ndarray, bits: int = 8) -> bytes:
    """The deflated rows of a grey image of 1, 2, 4 or 8 bits."""
    return zlib.compress(filtered(pixels, bits))


def filtered(pixels: np.ndarray, bits: int = 8) -> bytes:
    """The rows of a grey image as a PNG holds them."""
    lowest_bits = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - bits :]
    packed = np.packbits(lowest_bits.reshape(len(pixels), -1), axis=-1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def jp2_that_claims(height: int, width: int, pixels: np.ndarray) -> bytes:
    """A JPEG 2000 file whose header and codestream state another size than they hold."""
    data = bytearray(imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True))
    size = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", data, size + 8, width, height)
    struct.pack_into(">II", data, size + 24, width, height)  # one tile
    box = data.index(b"ihdr")
    struct.pack_into(">II", data, box + 4, height, width)
    return bytes(data)


def jpeg_that_claims(height: int, width: int, data: bytes) -> bytes:
    """A JPEG whose frame header states another size than it holds."""
    changed = bytearray(data)
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2))
    struct.pack_into(">HH", changed, frame + 5, height, width)
    return bytes(changed)


def entities() -> str:
    """XML that would grow to a thousand million words."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY e0 "word">{levels}]><OME>&e9;</OME>'


def entities_flat() -> str:
    """XML that would grow with the square of its length."""
    return f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY e "{"w" * 50_000}">]><OME>{"&e;" * 50_000}</OME>'


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self._marker, "w")


def pickled(marker: Path) -> bytes:
    return pickle.dumps(Payload(marker))


def npy_of_objects(marker: Path) -> bytes:
    """An npy file that holds a pickle."""
    file = io.BytesIO()
    np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


SVG = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="40" height="24">
<image xlink:href="file:///etc/hostname" width="40" height="24"/><text>&x;</text></svg>"""
HTML = b"<!DOCTYPE html><html><body><img src='http://127.0.0.1:9/x.tif'/><p>404 Not Found</p></body></html>"
