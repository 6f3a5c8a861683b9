"""The number an answer states: signs, currency, separators, fractions, exponents."""

import re

_MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2013\ufe63\uff0d", "-"))
_SIZE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"  # 1,000 is one number; of 1,2 only the 1
_NUMBER = re.compile(
    rf"""(?P<sign>-\s?)?[$€£¥]?\s?(?P<second>-\s?)?
    (?:
      (?:(?P<whole>\d+)[ ])?(?P<upper>{_SIZE})\s?/\s?(?P<lower>\d+(?![\d.]))   # 1/2 and 1 1/2
      | (?P<decimal>{_SIZE}(?:\.\d+)?|\.\d+)(?P<exponent>[eE][+-]?\d+)?
    )""",
    re.VERBOSE,
)


def first_number(text: str) -> float | None:
    """The first number of a text; None if it has none.

    A minus may be typed as U+2212 and stand before or after the currency; thousands are separated
    by `,`, `{,}` or a backslash and a comma; a percent sign is a unit, so that 50% is 50.

    >>> [first_number(text) for text in ("-$5", ".5", "1/2", "9{,}500", "1e3", "72, in all", "no")]
    [-5.0, 0.5, 0.5, 9500.0, 1000.0, 72.0, None]
    """
    plain = text.translate(_MINUS).replace("{,}", ",").replace("\\,", ",").replace("\\$", "$")
    match = _NUMBER.search(plain)
    if match is None:
        return None
    part = {name: (value or "").replace(",", "") for name, value in match.groupdict().items()}
    sign = -1.0 if part["sign"] or part["second"] else 1.0
    if part["upper"]:
        if not int(part["lower"]):
            return None
        return sign * (float(part["whole"] or 0) + float(part["upper"]) / float(part["lower"]))
    return sign * float(part["decimal"] + part["exponent"])
