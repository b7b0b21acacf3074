"""What tokens say about themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backbeat.tokens.unverified import moment, read_claims
from backbeat.tokens.verifier import sign


def test_the_claims_of_a_token_are_read() -> None:
    """Whoever signed it; times are seconds, and nothing else is a time."""
    claims = read_claims(
        sign({"sub": "eric", "exp": 12, "iat": True, "nbf": "7"}, "any secret of 32 bytes or more!!!")
    )
    assert claims is not None
    assert claims["sub"] == "eric"
    assert [moment(claims, name) for name in ("exp", "iat", "nbf", "missing")] == [12.0, None, None, None]
    assert moment(None, "exp") is None


@given(st.one_of(st.text(), st.builds("{}.{}.{}".format, st.text(), st.text(), st.text())))
def test_what_is_no_token_has_no_claims(text: str) -> None:
    """Or claims that are an object; nothing is ever raised."""
    assert read_claims(text) is None or isinstance(read_claims(text), dict)
