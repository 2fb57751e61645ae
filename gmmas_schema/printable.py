"""Words of somebody else on a line of ours."""


def printable(text: str) -> str:
    """Return a text without what is not printable: line breaks and control characters could make further lines, or colours, of it."""
    return "".join(letter for letter in text if letter.isprintable())
