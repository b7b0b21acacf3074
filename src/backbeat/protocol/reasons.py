"""Every way a Backbeat server says no: code, wire text, exception, retry policy, hint.

This is the only place where those are written; the server, the clients, the command line and the
documentation read them here. The texts are the wire texts of Supabase Realtime, because clients match on
them; hints are ours, and follow the text only where the server is set to explain itself.

Sources: the server specification, sections 1.5 (refused connects), 3.6 (refused joins), 4 (refused tokens),
8.1-8.3 (change subscriptions) and 11 (the catalogue of codes).
"""

from __future__ import annotations

from dataclasses import dataclass

from backbeat.errors import BadRequest, Denied, RateLimited, Refusal, Retry, TokenRefused, Unavailable

__all__ = ["REASONS", "Reason", "explained"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One way to be refused.

    Attributes:
        code: the stable name; several reasons may share one.
        text: the wire text, with `{fields}`.
        hint: what to do about it, in a sentence or two.
        error: the exception a Python caller gets.
        retry: what a client should do next.
        status: the HTTP status where the reason answers an HTTP request or an upgrade.
        prefixed: whether a join reply writes the code in front of the text.
    """

    code: str
    text: str
    hint: str
    error: type[Refusal]
    retry: Retry = Retry.NEVER
    status: int = 500
    prefixed: bool = True

    def refusal(self, *, topic: str | None = None, context: str = "", **fields: object) -> Refusal:
        """Make the exception that carries this reason.

        Args:
            topic: the sub-topic of the channel concerned.
            context: facts about this one case (which token, which policy), put before the hint.
            fields: values for the `{fields}` of the text.
        """
        return self.error(
            self.text.format(topic=topic, **fields),
            hint=f"{context} {self.hint}".strip(),
            code=self.code,
            topic=topic,
            retry=self.retry,
            status=self.status,
            prefixed=self.prefixed,
        )


def explained(text: str, hint: str, *, explain: bool) -> str:
    """Put the hint behind a wire text, the text itself untouched.

    Args:
        text: the legacy text, which clients match on.
        hint: what to do about it.
        explain: the server's setting; without it the text goes out alone.
    """
    return f"{text}. Hint: {hint}" if explain and hint else text


# Tokens -----------------------------------------------------------------------------------------------------

API_KEY_MISSING = Reason(
    "MissingAPIKey",
    "API key is missing",
    "Put the project's anon or publishable key in the query parameter `apikey`.",
    TokenRefused,
    status=401,
)
API_KEY_UNKNOWN = Reason(
    "InvalidAPIKey",
    "Invalid API key",
    "Double check your API key.",
    TokenRefused,
    status=401,
)
TOKEN_EXPIRED_AT_CONNECT = Reason(
    "InvalidJWTToken",
    "Token has expired",
    "Connect with the project's API key, and send the user's fresh token when joining.",
    TokenRefused,
    Retry.REFRESH,
    status=401,
)
TOKEN_EXPIRED = Reason(
    "InvalidJWTToken",
    "Token has expired {seconds} seconds ago",
    "Refresh the session and join again; if the token looks fresh on the client, compare the two clocks.",
    TokenRefused,
    Retry.REFRESH,
    status=401,
)
TOKEN_NOT_YET_VALID = Reason(
    "InvalidJWTToken",
    "Token is not valid yet",
    "Its `nbf` claim lies in the future: compare the issuer's clock with this server's.",
    TokenRefused,
    Retry.BACKOFF,
    status=401,
)
TOKEN_CLAIMS_MISSING = Reason(
    "InvalidJWTToken",
    "Fields `role` and `exp` are required in JWT",
    "Use a token issued by the project's auth service, or add both claims where the token is minted.",
    TokenRefused,
    status=401,
)
TOKEN_MALFORMED = Reason(
    "MalformedJWT",
    "The token provided is not a valid JWT",
    "It is not three dot-separated parts: often an `sb_…` key, an object instead of its `access_token`, "
    "or the text `null`.",
    TokenRefused,
    status=401,
)
TOKEN_SIGNATURE = Reason(
    "JwtSignatureError",
    "Failed to validate JWT signature",
    "The token was signed with another secret: it belongs to another project, or the secret has changed.",
    TokenRefused,
    status=401,
)
TOKEN_SIGNER = Reason(
    "JwtSignerError",
    "Failed to generate JWT signer, check your JWT secret or JWKS configuration",
    "The token's `alg` is not one this project has a key for.",
    TokenRefused,
    status=401,
)
TOKEN_SIGNER_KID = Reason(
    "JwtSignerError",
    'Failed to generate JWT signer for key ID (kid) "{kid}", check your JWT secret or JWKS configuration',
    "The project's key set has no such key: the key was rotated away, or the issuer is another one.",
    TokenRefused,
    status=401,
)

# Joins ------------------------------------------------------------------------------------------------------

UNMATCHED_TOPIC = Reason(
    "UnmatchedTopic",
    "unmatched topic",
    "Topics start with `realtime:`, and a topic has to be joined before anything is sent to it.",
    BadRequest,
    prefixed=False,
)
TOPIC_NAME_REQUIRED = Reason(
    "TopicNameRequired",
    "You must provide a topic name",
    "Join `realtime:<name>`; the name after the colon was empty.",
    BadRequest,
)
UNREADABLE_JOIN = Reason(
    "UnknownErrorOnChannel",
    "{detail}",
    "The join payload could not be used as it is: see the field that is named.",
    BadRequest,
)
UNAUTHORIZED = Reason(
    "Unauthorized",
    "You do not have permissions to read from this Channel topic: {topic}",
    "A private channel needs a SELECT policy on realtime.messages that is true for this role and topic; "
    "policies see the topic as realtime.topic() and the kind as the column `extension`.",
    Denied,
    status=403,
)
PERMISSION_REVOKED = Reason(
    "Unauthorized",
    "You no longer have permission to read from this Channel topic: {topic}",
    "The SELECT policy on realtime.messages is no longer true for the new token.",
    Denied,
)
BROADCAST_DENIED = Reason(
    "Unauthorized",
    "You do not have permissions to send to this Channel topic: {topic}",
    "Sending to a private channel needs an INSERT policy on realtime.messages that is true for this role, "
    "topic and extension `broadcast`.",
    Denied,
    status=403,
)
PRESENCE_DENIED = Reason(
    "Unauthorized",
    "You do not have permissions to track presence on this Channel topic: {topic}",
    "Tracking on a private channel needs an INSERT policy on realtime.messages that is true for this role, "
    "topic and extension `presence`.",
    Denied,
)
PRIVATE_ONLY = Reason(
    "PrivateOnly",
    "This project only allows private channels",
    "Join with `private: true`.",
    Denied,
)
CHANNEL_LIMIT = Reason(
    "ChannelRateLimitReached",
    "Too many channels",
    "One socket may hold only so many channels: leave those that are no longer needed, or raise the limit.",
    RateLimited,
    Retry.SLOW,
    status=429,
)
CONNECTION_LIMIT = Reason(
    "ConnectionRateLimitReached",
    "Too many connected users",
    "The server's connection limit is reached.",
    RateLimited,
    Retry.SLOW,
    status=429,
)
RESTARTING = Reason(
    "RealtimeRestarting",
    "Realtime is restarting, please standby",
    "The server is going down in good order; join again after reconnecting.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
)
DATABASE_UNREACHABLE = Reason(
    "UnableToConnectToProject",
    "Realtime was unable to connect to the project database",
    "Private channels and row changes need Postgres. Check that it runs and that the server's login works; "
    "public broadcast channels keep working meanwhile.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
)
POLICY_FAILED = Reason(
    "Unauthorized",
    "You do not have permissions to read from this Channel topic: {topic}",
    "A policy on realtime.messages raised an error, so nothing is granted.",
    Denied,
    status=403,
)
MISSING_PARTITION = Reason(
    "MissingPartition",
    "Realtime was unable to find the expected messages partition",
    "realtime.messages has no partition for today: run `backbeat migrate`, or keep a server running.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
)
QUERY_CANCELED = Reason(
    "QueryCanceled",
    "Query was cancelled, please try again",
    "A policy on realtime.messages took longer than 5 seconds, or someone cancelled it.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
)
REPLAY_FAILED = Reason(
    "UnableToReplayMessages",
    "Realtime was unable to replay messages",
    "The stored messages could not be read; the server's log says why.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
)
POOL_EXHAUSTED = Reason(
    "IncreaseConnectionPool",
    "Please increase your connection pool size",
    "Too many joins waited for a database connection at once.",
    Unavailable,
    Retry.BACKOFF,
    status=429,
)
JOIN_BACKLOG = Reason(
    "UnknownErrorOnChannel",
    "Too many messages while the channel was joining",
    "Wait for the reply to the join before sending.",
    RateLimited,
    Retry.BACKOFF,
)
UNKNOWN_ERROR = Reason(
    "UnknownErrorOnChannel",
    "Unknown Error on Channel",
    "The server failed; its log has the traceback.",
    Unavailable,
    Retry.BACKOFF,
    prefixed=False,
)

# Pushes -----------------------------------------------------------------------------------------------------

PAYLOAD_TOO_LARGE = Reason(
    "PayloadSizeExceeded",
    "payload_size_exceeded",
    "The broadcast is larger than the server's payload limit.",
    BadRequest,
    status=413,
    prefixed=False,
)
PAYLOAD_NOT_OBJECT = Reason(
    "InvalidBroadcastPayload",
    "Broadcast payload must be a map",
    "The payload of a message is a JSON object; wrap other values in one.",
    BadRequest,
    prefixed=False,
)
PRESENCE_NOT_OBJECT = Reason(
    "InvalidPresencePayload",
    "Presence track payload must be a map",
    "Track a JSON object.",
    BadRequest,
    prefixed=False,
)
PRESENCE_UNKNOWN_EVENT = Reason(
    "UnknownPresenceEvent",
    "Unknown presence event",
    "Presence understands `track` and `untrack`.",
    BadRequest,
    prefixed=False,
)
PRESENCE_TOO_LARGE = Reason(
    "ClientPresenceRateLimitReached",
    "Track message size exceeded",
    "The tracked object is larger than the server's payload limit.",
    RateLimited,
    Retry.SLOW,
)

# Change subscriptions (system messages: the code is not written on the wire) --------------------------------

CHANGES_NO_PARAMS = Reason(
    "RealtimeDisabledForConfiguration",
    "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {dump}",
    "Give `schema` and `table` as text; `*` stands for every published table.",
    BadRequest,
    prefixed=False,
)
CHANGES_BAD_SELECT = Reason(
    "RealtimeDisabledForConfiguration",
    'Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]',
    "",
    BadRequest,
    prefixed=False,
)
CHANGES_BAD_FILTER = Reason(
    "RealtimeDisabledForConfiguration",
    "Error parsing `filter` params: {detail}",
    "A filter is `column=operator.value`, several are joined by commas.",
    BadRequest,
    prefixed=False,
)
CHANGES_NO_TABLE = Reason(
    "RealtimeDisabledForConfiguration",
    "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given "
    "connect parameters: {params}",
    "No such table in the publication. Run: alter publication supabase_realtime add table <schema>.<table>;",
    BadRequest,
    prefixed=False,
)
CHANGES_REFUSED = Reason(
    "RealtimeDisabledForConfiguration",
    "Unable to subscribe to changes with given parameters. An exception happened so please check your "
    "connect parameters: {params}. Exception: {detail}",
    "The column must exist and be selectable by the token's role, and the value must suit its type.",
    BadRequest,
    prefixed=False,
)
CHANGES_UNAVAILABLE = Reason(
    "UnableToSubscribeToPostgres",
    "Unable to subscribe to changes: {detail}",
    "The server keeps trying; changes made until it succeeds are not delivered.",
    Unavailable,
    Retry.BACKOFF,
    prefixed=False,
)
CHANGES_SELECT_WILDCARD = Reason(
    "RealtimeDisabledForConfiguration",
    "Column selection is not supported for wildcard subscriptions. "
    "Provide an explicit schema and table name.",
    "",
    BadRequest,
    prefixed=False,
)
CHANGES_OPERATOR = Reason(
    "RealtimeDisabledForConfiguration",
    "Error parsing `filter` params: the operator {operator} is not supported yet",
    "Use eq, neq, in, is or isdistinct, with or without `not.`, or filter on the client.",
    BadRequest,
    prefixed=False,
)

REASONS: dict[str, Reason] = {
    name: value for name, value in list(globals().items()) if isinstance(value, Reason)
}
"""Every reason by its name in this module."""
