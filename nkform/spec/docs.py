"""The table of attributes in docs/spec.md, made from the attribute table.

`python -m nkform.spec.docs` writes it between its markers. Writes that file and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from nkform.attributes import ATTRIBUTES, Attribute
from nkform.features import FEATURES

FILE = "docs/spec.md"
BEGIN = "<!-- attributes: made by python -m nkform.spec.docs -->"
END = "<!-- end of attributes -->"

_PLACES = {
    "device": "beside `peer`",
    "pair": "beside `peer`, for both ends",
    "end": "beside `peer` and in it",
}


def table() -> str:
    """The attributes as a Markdown table."""
    return "\n".join(
        [
            "| key | where | values | kinds | default | changes | what it is |",
            "|---|---|---|---|---|---|---|",
            *(_row(row) for row in ATTRIBUTES),
        ]
    )


def filled(text: str) -> str:
    """The manual with its table as it should be. Raises ValueError if the markers are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{FILE} has no markers for the table of attributes")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _row(row: Attribute) -> str:
    cells = [
        f"`{row.name}`",
        _PLACES[row.place],
        _values(row),
        ", ".join(sorted(row.kinds)),
        _default(row),
        "in place" if row.change == "live" else "by replacement",
        " ".join(_about(row)),
    ]
    return f"| {' | '.join(cells)} |"


def _values(row: Attribute) -> str:
    schema = row.schema
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "boolean":
        return "`true`, `false`"
    if schema["type"] == "string":
        return "`02:00:00:00:00:01`"
    values = f"{schema['minimum']}–{schema['maximum']}"
    return values + ", or `{for: [DEVICE, …]}`" if row.computed else values


def _default(row: Attribute) -> str:
    if row.inherit:
        return "peer: as the primary" if row.default is None else f"`{str(row.default).lower()}`; peer: as the primary"
    return "not managed" if row.default is None else f"`{str(row.default).lower()}`"


def _about(row: Attribute) -> Iterator[str]:
    yield row.doc
    if row.feature:
        yield f"Linux {FEATURES[row.feature].since}."


if __name__ == "__main__":
    from pathlib import Path

    path = Path(__file__).parents[2] / FILE
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
