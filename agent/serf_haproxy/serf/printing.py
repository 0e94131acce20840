"""How text from outside is shown: all of it passes here before a person reads it. Cheap to import.

Names, tags, reasons, file names, log lines of other programs: each may contain escape sequences that change a terminal,
bidirectional controls that show a text in another order, or line feeds that forge a line of a log.
"""

_LENGTH = 1000


def printable(text: str, length: int = _LENGTH) -> str:
    r"""Return a text as part of one line that is safe for every terminal and log.

    All characters but the printable ones of ASCII appear as Python writes them: `\x1b`, `\u202e`, `\n`, `\xe9`.

    Args:
        text: Any text.
        length: How many characters of it are shown; of a longer one, "..." follows.
    """
    if len(text) > length:
        text = text[:length] + "..."
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if " " <= one <= "~" else ascii(one)[1:-1] for one in text)


def quoted(text: str | None, length: int = _LENGTH) -> str:
    """Return a text as a Python literal, in quotes and without ambiguity; None is None."""
    return ascii(text if text is None or len(text) <= length else text[:length] + "...")
