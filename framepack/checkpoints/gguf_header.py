"""The header of a GGUF file is walked within bounds, so that a broken one costs neither memory nor time.

Little-endian: magic, version, counts of tensors and fields; each field; each tensor's name, axes, type and place.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError
from .gguf_blocks import BLOCKS

MOST = 1 << 16  # tensors, and fields
LONGEST = 1 << 24  # bytes of a text
ELEMENTS = 1 << 20  # of an array
AXES = 8
VERSIONS = (2, 3)
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by the number of a field's type
UINT32, TEXT, ARRAY = 4, 8, 9
PLAIN = {0: ("F32", 4), 1: ("F16", 2), 30: ("BF16", 2)}  # name and bytes by the number of a tensor's type
NUMBERS = {2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K"}
NUMBERS |= {14: "Q6_K", 20: "IQ4_NL", 23: "IQ4_XS"}
OTHERS = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S"}
OTHERS |= {24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}


def check_header(path: Path) -> None:
    """Raises CheckpointError for a file that is no GGUF, is cut short, or has tensors of a type that is not known."""
    if not path.is_file():  # a pipe would block its reader
        raise CheckpointError(f"{path.name} is no regular file. Choose a GGUF file.")
    with path.open("rb") as file:
        _Walk(file, path.name, path.stat().st_size).run()


class _Walk:
    """A reader of one header that knows how many bytes are left."""

    def __init__(self, file: BinaryIO, name: str, size: int):
        self.file, self.name, self.size, self.alignment = file, name, size, 32

    def run(self) -> None:
        if self.take(4) != b"GGUF":
            raise CheckpointError(f"{self.name} is no GGUF file. Choose another, or get it again.")
        version = self.number("I")
        if version not in VERSIONS:
            raise CheckpointError(f"{self.name} is GGUF of version {version}; versions 2 and 3 are known.")
        num_tensors, num_fields = self.number("Q"), self.number("Q")
        self.bounded("tensors", num_tensors, MOST)
        self.bounded("fields", num_fields, MOST)
        for _ in range(num_fields):
            self.field()
        end = max((self.tensor() for _ in range(num_tensors)), default=0)
        if (begin := -(-self.file.tell() // self.alignment) * self.alignment) + end > self.size:
            raise CheckpointError(
                f"{self.name} must have {begin + end} bytes; got {self.size}. It is cut short; get it again."
            )

    def take(self, count: int) -> bytes:
        found = self.file.read(count) if count <= self.size - self.file.tell() else b""
        if len(found) != count:
            raise CheckpointError(f"{self.name} is cut short in its header. Get the file again.")
        return found

    def number(self, kind: str) -> int:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def bounded(self, what: str, count: int, most: int) -> int:
        if count > most:
            raise CheckpointError(f"{self.name} must have at most {most} {what}; got {count}. Get the file again.")
        return count

    def text(self) -> str:
        return self.take(self.bounded("bytes in a text", self.number("Q"), LONGEST)).decode(errors="replace")

    def field(self) -> None:
        name, kind = self.text(), self.number("I")
        if name == "general.alignment" and kind == UINT32:
            self.alignment = self.number("I")
            if self.alignment < 1 or self.alignment & (self.alignment - 1) or self.alignment > self.size:
                raise CheckpointError(f"{self.name}: {name} must be a power of two; got {self.alignment}.")
        elif kind == ARRAY:
            inner = self.number("I")
            for _ in range(self.bounded(f"values in {name}", self.number("Q"), ELEMENTS)):
                self.value(name, inner)
        else:
            self.value(name, kind)

    def value(self, name: str, kind: int) -> None:
        if kind == TEXT:
            self.text()
        elif kind in SCALARS:
            self.take(SCALARS[kind])
        else:
            raise CheckpointError(f"{self.name}: the field {name} is of the type {kind}, which is not known.")

    def tensor(self) -> int:
        """Where a tensor ends, from the first one's place."""
        name = self.text()
        axes = [self.number("Q") for _ in range(self.bounded(f"axes of {name}", self.number("I"), AXES))]
        kind, place, num = self.number("I"), self.number("Q"), math.prod(axes)
        if kind in PLAIN:
            return place + num * PLAIN[kind][1]
        if kind not in NUMBERS:
            raise CheckpointError(
                f"{self.name}: {name} is {OTHERS.get(kind, f'of the type {kind}')}, which is not known. Use one of "
                f"{', '.join(BLOCKS)}, BF16, F16, F32."
            )
        values, size, _ = BLOCKS[NUMBERS[kind]]
        if not axes or axes[0] % values:
            raise CheckpointError(
                f"{self.name}: {name} has rows of {axes[:1]} values; {NUMBERS[kind]} needs {values} n."
            )
        return place + num // values * size
