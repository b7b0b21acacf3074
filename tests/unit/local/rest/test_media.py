"""Choosing a format, and writing CSV."""

from __future__ import annotations

import pytest

from backbeat.local.rest.errors import RestError
from backbeat.local.rest.media import Media, csv_of, negotiate


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Media.JSON),
        ("*/*", Media.JSON),
        ("application/json", Media.JSON),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", Media.JSON),
        ("application/vnd.pgrst.object+json", Media.OBJECT),
        ("application/vnd.pgrst.object+json; charset=utf-8, application/json", Media.OBJECT),
        ("Text/CSV", Media.CSV),
    ],
)
def test_negotiate(accept: str, expected: Media) -> None:
    """The first format that can be made is made."""
    assert negotiate(accept) is expected


@pytest.mark.parametrize(
    "accept", ["application/vnd.pgrst.plan+json", "application/vnd.pgrst.array+json;nulls=stripped"]
)
def test_negotiate_refuses(accept: str) -> None:
    """A format that cannot be made is 406."""
    with pytest.raises(RestError) as caught:
        negotiate(accept)
    assert caught.value.status == 406


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("[]", "a,b\n"),
        ('[{"x":1.50,"y":"two"}]', "x,y\n1.50,two\n"),
        ('[{"x":null,"y":true}]', "x,y\n,true\n"),
        ('[{"x":"a,b","y":"say \\"hi\\"\\n"}]', 'x,y\n"a,b","say ""hi""\n"\n'),
        ('[{"x":{"k": [1]},"y":[1,2]}]', 'x,y\n"{""k"": [1]}","[1,2]"\n'),
    ],
)
def test_csv(rows: str, expected: str) -> None:
    """Cells keep their digits, and are quoted where they must be."""
    assert csv_of(rows, ["a", "b"]) == expected
