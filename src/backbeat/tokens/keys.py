"""The API keys of a project, and the one rule that turns what a caller sent into a token.

Section 2 of the HTTP surface specification: a project has two roles, each with a JWT key and an opaque
`sb_…` key; every prefix and the socket accept both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backbeat.protocol import reasons
from backbeat.tokens.verifier import sign

__all__ = ["DEMO_EXPIRY", "DEMO_ISSUER", "ApiKeys"]

DEMO_ISSUER = "supabase-demo"
DEMO_EXPIRY = 1_983_812_996
"""When the well-known keys of a local project end (November 2032)."""

OPAQUE = "sb_"


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The keys of a project.

    Attributes:
        anon: the JWT key of role `anon`.
        service: the JWT key of role `service_role`.
        publishable: the opaque twin of `anon`.
        secret: the opaque twin of `service`.
    """

    anon: str = field(repr=False)
    service: str = field(repr=False)
    publishable: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    @classmethod
    def of(cls, jwt_secret: str, *, publishable: str = "", secret: str = "") -> ApiKeys:
        """Mint the JWT keys of a project from its secret; with the default secret, the well-known ones."""

        def key(role: str) -> str:
            return sign({"iss": DEMO_ISSUER, "role": role, "exp": DEMO_EXPIRY}, jwt_secret)

        return cls(key("anon"), key("service_role"), publishable, secret)

    def token_of(self, key: str) -> str:
        """Turn an API key into the JWT that stands for it; a JWT key stands for itself.

        Raises:
            TokenRefused: an `sb_…` key that is not one of this project's.
        """
        if not is_opaque(key):
            return key
        if self.secret and key == self.secret:
            return self.service
        if self.publishable and key == self.publishable:
            return self.anon
        raise reasons.API_KEY_UNKNOWN.refusal()

    def token_of_request(self, authorization: str, apikey: str) -> str | None:
        """Find the token of an HTTP request (section 2.3).

        Args:
            authorization: the `Authorization` header, or an empty string.
            apikey: the `apikey` header, or an empty string.

        Returns:
            The token to verify; None when the caller sent nothing at all.

        Raises:
            TokenRefused: an unknown `sb_…` key, or an `Authorization` header that is no Bearer token.
        """
        scheme, _, credentials = authorization.strip().partition(" ")
        credentials = credentials.strip()
        if scheme and not is_opaque(credentials):
            if scheme.lower() != "bearer" or not credentials:
                raise reasons.TOKEN_MALFORMED.refusal(
                    context="The Authorization header is not `Bearer <token>`."
                )
            return credentials
        return self.token_of(apikey or credentials) if apikey or credentials else None


def is_opaque(key: str) -> bool:
    """Tell an opaque `sb_…` key from a JWT."""
    return key.startswith(OPAQUE)
