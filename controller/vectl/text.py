"""Text of the other side, made harmless for a terminal; and the two lines of an error."""

import codecs
import re
from enum import Enum, auto

import click

# C0 without tab and newline, DEL, C1, and what reorders text (bidi controls).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_UNSAFE = re.compile(_CONTROL.pattern.replace(r"\x0b-\x1f", r"\x0b\x0c\x0e-\x1f"))


def clean(text: str) -> str:
    """Without control characters; tabs and newlines stay."""
    return _CONTROL.sub("", text)


def one_line(text: str) -> str:
    """As `clean`, with whitespace of any kind as single blanks."""
    return " ".join(clean(text.replace("\n", " ").replace("\t", " ")).split())


def complain(message: str, hint: str) -> None:
    """The two lines of an error, on stderr."""
    click.echo(f"Error: {clean(message)}", err=True)
    if hint:
        click.echo(f"Hint: {clean(hint)}", err=True)


class _In(Enum):
    TEXT = auto()
    ESCAPE = auto()
    CSI = auto()
    STRING = auto()
    STRING_ESCAPE = auto()


_STARTS = {"\x1b": _In.ESCAPE, "\x9b": _In.CSI, "\x9d": _In.STRING, "\x90": _In.STRING}


class EscapeFilter:
    """Takes escape sequences and control characters out of a stream of UTF-8; tab, LF and CR stay.

    A console is written by whoever is root in the VE: its sequences could set the title of the reader's terminal, or
    make it answer. State is kept over chunks, so a cut sequence is found as well.
    """

    def __init__(self) -> None:
        self._state = _In.TEXT
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        text = self._decoder.decode(data)
        if self._state is _In.TEXT and _UNSAFE.search(text) is None:
            return text
        return "".join(char for char in text if self._keeps(char))

    def _keeps(self, char: str) -> bool:
        match self._state:
            case _In.TEXT:
                if char in _STARTS:
                    self._state = _STARTS[char]
                    return False
                return _UNSAFE.match(char) is None
            case _In.ESCAPE:
                self._state = _after_escape(char)
            case _In.CSI:
                if "\x40" <= char <= "\x7e":
                    self._state = _In.TEXT
            case _In.STRING:
                self._state = _in_string(char)
            case _In.STRING_ESCAPE:
                self._state = _In.TEXT if char == "\\" else _In.STRING
        return False


def _after_escape(char: str) -> _In:
    if char == "[":
        return _In.CSI
    if char in "]PX^_":
        return _In.STRING
    return _In.ESCAPE if " " <= char <= "/" else _In.TEXT


def _in_string(char: str) -> _In:
    if char in "\x07\x9c":
        return _In.TEXT
    return _In.STRING_ESCAPE if char == "\x1b" else _In.STRING
