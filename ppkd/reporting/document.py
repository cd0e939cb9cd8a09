"""What a report consists of, before it is HTML or Markdown."""

from dataclasses import dataclass, field


@dataclass
class Text:
    """A paragraph."""

    text: str


@dataclass
class Table:
    """Cells as text, the first column to the left, the others to the right.

    Attributes:
        head: of the columns.
        rows: lists of as many cells.
        caption: above the table.
        strong: indices of rows that are shown in bold.
        plain: whether all columns hold text and go to the left.
    """

    head: list
    rows: list
    caption: str = ""
    strong: tuple = ()
    plain: bool = False


@dataclass
class Image:
    """A picture.

    Attributes:
        data: of the file.
        kind: ``svg``, ``png`` or ``jpeg``.
        alt: what it shows, for who does not see it.
        caption: below it.
        size: width and height in CSS pixels.
    """

    data: bytes
    kind: str
    alt: str
    caption: str = ""
    size: tuple = (0, 0)


@dataclass
class Gallery:
    """Images beside one another, as many as there is room for.

    Attributes:
        images: list of `Image`.
        title: above them.
        least: width in CSS pixels below which none of them is shown if there is room.
    """

    images: list
    title: str = ""
    least: int = 300


@dataclass
class Legend:
    """What marks in the pictures mean: list of ``(kind, text)``, kind being a class of the style sheet."""

    entries: list


@dataclass
class Missing:
    """What is not there, and the command that would supply it."""

    what: str
    command: str = ""


@dataclass
class Code:
    """A file's text, folded away behind its title."""

    title: str
    text: str


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: heading.
        lead: one or two sentences on what is to be seen.
        blocks: list of the classes above.
    """

    title: str
    lead: str
    blocks: list = field(default_factory=list)

    @property
    def anchor(self):
        """The name that links use."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass
class Document:
    """The page.

    Attributes:
        title: heading.
        summary: the outcome in one sentence, with the numbers.
        remarks: what has to be known to read it: sentences.
        facts: list of ``(value, what it is)``, the few numbers that count.
        sections: list of `Section`.
        footer: one line.
    """

    title: str
    summary: str
    remarks: list
    facts: list
    sections: list
    footer: str
