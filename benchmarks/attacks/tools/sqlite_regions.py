"""(not a benchmark) What each byte of an SQLite file is for, so that flipped bits can be told apart by what they hit.

Source: https://www.sqlite.org/fileformat2.html, sections 1.3 (header), 1.5 (freelist) and 1.6 (b-tree pages). Reads tables whose
key is the row id, which is all that a ledger has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

HEADER = (
    (16, "header: magic"),
    (18, "header: page size"),
    (19, "header: write version"),
    (20, "header: read version"),
    (21, "header: reserved bytes a page"),
    (24, "header: payload fractions"),
    (28, "header: change counter"),
    (32, "header: size in pages"),
    (40, "header: freelist"),
    (44, "header: schema cookie"),
    (48, "header: schema format"),
    (52, "header: default cache size"),
    (56, "header: largest root page"),
    (60, "header: text encoding"),
    (64, "header: user version (format)"),
    (68, "header: incremental vacuum"),
    (72, "header: application id"),
    (92, "header: reserved"),
    (96, "header: version-valid-for"),
    (100, "header: SQLite version"),
)
LEAF, INTERIOR = 0x0D, 0x05
UNKNOWN = "not reached"


def regions_of(data: bytes, roots: dict[str, int]) -> list[str]:
    """The name of each byte's region; `roots`: table -> its root page, in addition to the schema's on page 1."""
    reader = _Reader(data, [UNKNOWN] * len(data))
    start = 0
    for end, name in HEADER:
        reader.mark(start, end, name)
        start = end
    for table, root in {"schema": 1, **roots}.items():
        reader.tree(root, table)
    reader.freelist()
    return reader.names


@dataclass
class _Reader:
    """The file, and the names given to its bytes so far."""

    data: bytes
    names: list[str]

    @property
    def page_size(self) -> int:
        size = self.number(16, 2)
        return 65536 if size == 1 else size

    @property
    def usable(self) -> int:
        """Bytes of a page that hold anything."""
        return self.page_size - self.data[20]

    def number(self, place: int, width: int) -> int:
        return int.from_bytes(self.data[place : place + width], "big")

    def mark(self, start: int, end: int, name: str) -> None:
        self.names[start:end] = [name] * (end - start)

    def page(self, number: int) -> int:
        """Where a page starts in the file."""
        return (number - 1) * self.page_size

    def varint(self, place: int) -> tuple[int, int]:
        """A variable-length number and where it ends."""
        value = 0
        for step in range(8):
            byte = self.data[place + step]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, place + step + 1
        return value << 8 | self.data[place + 8], place + 9

    def tree(self, number: int, table: str) -> None:
        """Name the bytes of a table's page and of all below it."""
        base = self.page(number)
        head = base + (100 if number == 1 else 0)
        kind, cells = self.data[head], self.number(head + 3, 2)
        pointers = head + (12 if kind == INTERIOR else 8)
        self.mark(head, base + self.page_size, "unused space of a page")
        self.mark(head, pointers, "page headers")
        self.mark(pointers, pointers + 2 * cells, "cell pointers")
        for i in range(cells):
            cell = base + self.number(pointers + 2 * i, 2)
            if kind == INTERIOR:
                self.mark(cell, self.varint(cell + 4)[1], "inner cells")
                self.tree(self.number(cell, 4), table)
            else:
                self.leaf_cell(cell, table)
        if kind == INTERIOR:
            self.tree(self.number(head + 8, 4), table)
        free = self.number(head + 1, 2)
        while free:
            self.mark(base + free, base + free + 4, "free block headers")
            free = self.number(base + free, 2)

    def leaf_cell(self, cell: int, table: str) -> None:
        """Name a row: its lengths, its payload, and what of it went to other pages."""
        size, place = self.varint(cell)
        _, payload = self.varint(place)
        self.mark(cell, payload, "row lengths and ids")
        least = (self.usable - 12) * 32 // 255 - 23
        most = self.usable - 35
        local = size
        if size > most:
            local = least + (size - least) % (self.usable - 4)
            local = local if local <= most else least
        name = f"rows of {table}"
        self.mark(payload, payload + local, name)
        if size > local:
            self.mark(payload + local, payload + local + 4, "overflow pointers")
            self.overflow(self.number(payload + local, 4), size - local, name)

    def overflow(self, number: int, left: int, name: str) -> None:
        """Name the pages that a long row goes on in."""
        while number and left > 0:
            base = self.page(number)
            here = min(left, self.usable - 4)
            self.mark(base, base + 4, "overflow pointers")
            self.mark(base + 4, base + 4 + here, name)
            self.mark(base + 4 + here, base + self.page_size, "unused end of an overflow page")
            number, left = self.number(base, 4), left - here

    def freelist(self) -> None:
        """Name the pages that hold nothing any more."""
        trunk = self.number(32, 4)
        while trunk:
            base = self.page(trunk)
            count = self.number(base + 4, 4)
            self.mark(base, base + self.page_size, "pages of the freelist")
            self.mark(base, base + 8 + 4 * count, "freelist pointers")
            for i in range(count):
                free = self.page(self.number(base + 8 + 4 * i, 4))
                self.mark(free, free + self.page_size, "pages of the freelist")
            trunk = self.number(base, 4)


def in_order(names: Sequence[str]) -> list[str]:
    """Each region once, in the order of the file."""
    return list(dict.fromkeys(names))
