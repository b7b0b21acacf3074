"""What the text of a condition says about whom it can let through."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from backbeat.postgres.conditions import Limit, Member, Owner, limits

OWN = "(auth.uid() = owner)"
OWNER = Owner("owner")


def query(where: str = "(m.member = auth.uid())", selected: str = "m.band", rest: str = "") -> str:
    return f"( SELECT {selected}\n   FROM public.members m\n  WHERE {where}{rest})"


MEMBER = f"(band IN {query()})"
IS_MEMBER = Member("public", "members", "member", (("band", "band"),))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (OWN, {OWNER}),
        ("(( SELECT auth.uid() AS uid) = owner)", {OWNER}),
        (f"({OWN} OR {MEMBER})", {OWNER, IS_MEMBER}),
        (f"({OWN} OR ({MEMBER} OR {OWN}))", {OWNER, IS_MEMBER}),
        (f"({MEMBER} AND {OWN})", {OWNER}),
        (f"((title = 'a (b AND c'::text) AND {OWN})", {OWNER}),
        (f"((title = E'it\\'s ('::text) AND {OWN})", {OWNER}),
        (f"((title = ') OR true'::text) AND {OWN})", {OWNER}),
        ('(auth.uid() = "O""R")', {Owner('O"R')}),
        ('(auth.uid() = "OR")', {Owner("OR")}),
        (MEMBER, {IS_MEMBER}),
        (f"(EXISTS {query('((m.band = songs.band) AND (m.member = auth.uid()))', '1')})", {IS_MEMBER}),
        (f"(EXISTS {query(selected='')})", {Member("public", "members", "member", ())}),
        (
            f"(EXISTS {query('(((m.a)::text = (songs.b)::text) AND (m.member = auth.uid()))', '')})",
            {Member("public", "members", "member", (("a", "b"),))},
        ),
    ],
)
def test_what_is_understood_limits_who_is_asked(condition: str, expected: Collection[Limit]) -> None:
    """Of an AND one part is enough; of an OR every part counts."""
    assert limits(condition, "songs") == frozenset(expected)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "()",
        ")",
        "(auth.uid() = owner",
        "true",
        "(auth.uid() <> owner)",
        "(auth.uid() IS NOT DISTINCT FROM owner)",
        "(auth.uid() OPERATOR(public.=) owner)",
        "(other.uid() = owner)",
        "(auth.uid(1) = owner)",
        "(auth.uid() = lower(owner))",
        "(auth.uid() = true)",
        f"(NOT {OWN})",
        f"({OWN} OR true)",
        f"({OWN} IS NOT TRUE)",
        f"(NOT {MEMBER})",
        f"(band <> ALL {query()})",
        f"(band IN {query(rest=' LIMIT 1')})",
        f"(band IN {query(rest=' UNION SELECT 1')})",
        f"(0 = {query(selected='count(*)')})",
        f"(EXISTS {query(selected='count(*)')})",
        f"(EXISTS {query('((m.member = auth.uid()) OR true)', '1')})",
        f"(EXISTS {query('(m.member <> auth.uid())', '1')})",
        f"(EXISTS {query('(songs.owner = auth.uid())', '1')})",
        "(EXISTS ( SELECT 1 FROM public.members m, public.songs s WHERE (m.member = auth.uid())))",
        "(EXISTS ( SELECT 1 FROM (public.members m JOIN public.b ON (true)) WHERE (m.member = auth.uid())))",
        "(EXISTS ( SELECT 1 FROM public.members m(member) WHERE (m.member = auth.uid())))",
    ],
)
def test_whatever_else_may_let_anybody_through(condition: str) -> None:
    """What is not understood is asked."""
    assert limits(condition, "songs") is None


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        (f"(true = {query()})", ()),
        (f'("true" = {query()})', (("band", "true"),)),
        (f"(band IN {query(selected='DISTINCT m.band')})", ()),
        (f"(EXISTS {query('((m.band = m.other) AND (m.member = auth.uid()))', '1')})", ()),
        (f"(EXISTS {query('((m.band = other.band) AND (m.member = auth.uid()))', '1')})", ()),
    ],
)
def test_only_columns_of_the_row_are_matched(condition: str, matches: Collection[tuple[str, str]]) -> None:
    """Without a match, whoever stands in the table at all is asked."""
    assert limits(condition, "songs") == frozenset([Member("public", "members", "member", (*matches,))])
