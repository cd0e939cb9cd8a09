"""Text of others for a terminal, a log or a page: what can be seen, and nothing that acts or forges a line."""

import logging
import unicodedata

# Control and format characters (escapes, those that turn the direction round), line and paragraph separators, halves of
# surrogate pairs, and what has no meaning yet. Spaces of other scripts are text.
_ACTING = frozenset(["Cc", "Cf", "Cs", "Cn", "Zl", "Zp"])


def printable(text, lines=False):
    """`text` with everything that is not seen as itself written out, as ``\\\\x1b`` or ``\\\\u202e``.

    Args:
        text: anything; its ``str``.
        lines: leave line breaks as they are: for a text of ours that consists of lines.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if (lines and c == "\n") or unicodedata.category(c) not in _ACTING else _written(c) for c in text)


def _written(character):
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class _Record(logging.LogRecord):
    """A record of any logger, ppdet's among them, whose lines are told from one another by their beginning."""

    def getMessage(self):
        if self.name == "ppkd":  # whose messages are one line each, see `log`
            return super().getMessage()
        return printable(super().getMessage(), lines=True).replace("\n", "\n    ")


def escape_logs():
    """From now on let the messages of all loggers of this process be printable, further lines of one be indented."""
    logging.setLogRecordFactory(_Record)
