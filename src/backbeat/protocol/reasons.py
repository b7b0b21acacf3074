"""Every way a Backbeat server says no: code, wire text, exception, retry policy, hint.

This is the only place where those are written (close frames stand in `closings`); the server, the clients,
the command line and the documentation read them here. The texts are the wire texts of Supabase Realtime,
because clients match on them; hints are ours, and follow the text only where the server is set to explain
itself.

Sources: the server specification, sections 1.5 (refused connects), 3.6 (refused joins), 4 (refused tokens),
8.1-8.3 (change subscriptions) and 11 (the catalogue of codes).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backbeat.errors import BadRequest, Denied, RateLimited, Refusal, Retry, TokenRefused, Unavailable

__all__ = ["REASONS", "Reason", "Where", "explained"]


class Where(Enum):
    """Where a client meets a reason; what it reads there differs."""

    CONNECT = "connect"
    """The answer to an upgrade: `{"error": text}` with a status."""

    JOIN = "join"
    """The error reply to a join: the code stands before the text, unless the reason is not prefixed."""

    REPLY = "reply"
    """The error reply to a push: the text alone."""

    SYSTEM = "system"
    """A `system` message on the channel: the text alone."""

    HTTP = "http"
    """The answer to an HTTP request, with a status. There, every refused token reads `Unauthorized`."""

    BATCH = "batch"
    """The answer to a batch of broadcasts, about one of them: the text alone, beside the code."""


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
        meaning: what is the matter, in a sentence.
        causes: how that may have come about, the likeliest first.
        where: where clients meet it.
    """

    code: str
    text: str
    hint: str
    error: type[Refusal]
    retry: Retry = Retry.NEVER
    status: int = 500
    prefixed: bool = True
    meaning: str = ""
    causes: tuple[str, ...] = ()
    where: tuple[Where, ...] = ()

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


def explained(text: str, refusal: Refusal, *, explain: bool) -> str:
    """Put the hint behind a wire text, the text itself untouched.

    Args:
        text: the legacy text, which clients match on.
        refusal: says what to do about it, and the code that the documentation explains.
        explain: the server's setting; without it the text goes out alone.
    """
    if not explain:
        return text
    named = "" if text.startswith(refusal.code) else f" Error code: {refusal.code}."
    return f"{text}. Hint: {refusal.hint}{named}" if refusal.hint or named else text


# Tokens -----------------------------------------------------------------------------------------------------

API_KEY_MISSING = Reason(
    "MissingAPIKey",
    "API key is missing",
    "Put the project's anon or publishable key in the query parameter `apikey`.",
    TokenRefused,
    status=401,
    meaning="A socket was opened without an API key.",
    causes=(
        "The URL has no `apikey` parameter, and there is no `x-api-key` header.",
        "An environment variable of the page build is empty, so the client was made with an empty key.",
    ),
    where=(Where.CONNECT,),
)
API_KEY_UNKNOWN = Reason(
    "InvalidAPIKey",
    "Invalid API key",
    "Double check your API key.",
    TokenRefused,
    status=401,
    meaning="The opaque `sb_…` key is not one of this project's.",
    causes=(
        "The key belongs to another project or another environment.",
        "The key was replaced on the server and not in the client.",
        "The server was started without `publishable_key` or `secret_key`.",
    ),
    where=(Where.CONNECT, Where.HTTP),
)
TOKEN_EXPIRED_AT_CONNECT = Reason(
    "InvalidJWTToken",
    "Token has expired",
    "Connect with the project's API key, and send the user's fresh token when joining.",
    TokenRefused,
    Retry.REFRESH,
    status=401,
    meaning="The JWT that a socket was opened with has ended.",
    causes=(
        "A user's token was put where the API key belongs.",
        "The API key was minted with an expiry that has come.",
    ),
    where=(Where.CONNECT,),
)
TOKEN_EXPIRED = Reason(
    "InvalidJWTToken",
    "Token has expired {seconds} seconds ago",
    "Refresh the session and join again; if the token looks fresh on the client, compare the two clocks.",
    TokenRefused,
    Retry.REFRESH,
    status=401,
    meaning="The token has ended, so nothing is done in its name any more.",
    causes=(
        "The client slept, or was in the background, and did not refresh its session.",
        "The refreshed token never reached the socket: `setAuth` was not called.",
        "The clock of the issuer or of this server is wrong.",
    ),
    where=(Where.JOIN, Where.SYSTEM, Where.HTTP),
)
TOKEN_NOT_YET_VALID = Reason(
    "InvalidJWTToken",
    "Token is not valid yet",
    "Its `nbf` claim lies in the future: compare the issuer's clock with this server's.",
    TokenRefused,
    Retry.BACKOFF,
    status=401,
    meaning="The token becomes valid later than now.",
    causes=(
        "The clock of the issuer runs ahead of this server's, or this server's lags.",
        "The token was minted for later use.",
    ),
    where=(Where.CONNECT, Where.JOIN, Where.SYSTEM, Where.HTTP),
)
TOKEN_CLAIMS_MISSING = Reason(
    "InvalidJWTToken",
    "Fields `role` and `exp` are required in JWT",
    "Use a token issued by the project's auth service, or add both claims where the token is minted.",
    TokenRefused,
    status=401,
    meaning="The token is signed correctly, but does not say which role it acts as, or when it ends.",
    causes=(
        "The token was minted by hand, or by an issuer that knows nothing of Postgres roles.",
        "A hook that customises tokens removed a claim.",
    ),
    where=(Where.CONNECT, Where.JOIN, Where.SYSTEM, Where.HTTP),
)
TOKEN_MALFORMED = Reason(
    "MalformedJWT",
    "The token provided is not a valid JWT",
    "It is not three dot-separated parts: often an `sb_…` key, an object instead of its `access_token`, "
    "or the text `null`.",
    TokenRefused,
    status=401,
    meaning="What was sent as a token is not a JWT.",
    causes=(
        "The whole session object was sent in place of its `access_token`.",
        "The variable was empty, and the text `null` or `undefined` was sent.",
        "An opaque `sb_…` key was sent where only a JWT will do.",
        "The token was cut, or is longer than 16 KiB.",
    ),
    where=(Where.CONNECT, Where.JOIN, Where.SYSTEM, Where.HTTP),
)
TOKEN_SIGNATURE = Reason(
    "JwtSignatureError",
    "Failed to validate JWT signature",
    "The token was signed with another secret: it belongs to another project, or the secret has changed.",
    TokenRefused,
    status=401,
    meaning="The token is well-formed, but its signature was not made with the project's key.",
    causes=(
        "The token was issued by another project.",
        "The server's `jwt_secret` is not the secret of the auth service.",
        "The secret was changed, and the token is older than that.",
        "Somebody altered the token.",
    ),
    where=(Where.CONNECT, Where.JOIN, Where.SYSTEM, Where.HTTP),
)
TOKEN_SIGNER = Reason(
    "JwtSignerError",
    "Failed to generate JWT signer, check your JWT secret or JWKS configuration",
    "The token's `alg` is not one this project has a key for.",
    TokenRefused,
    status=401,
    meaning="The server has no key for the algorithm that the token names.",
    causes=(
        "The project signs with RS256, ES256 or EdDSA, and the server was given no key set.",
        "The token of an asymmetric algorithm has no `kid`.",
        "The token says `none`, or an algorithm nobody should use.",
    ),
    where=(Where.CONNECT, Where.JOIN, Where.SYSTEM, Where.HTTP),
)
TOKEN_SIGNER_KID = Reason(
    "JwtSignerError",
    'Failed to generate JWT signer for key ID (kid) "{kid}", check your JWT secret or JWKS configuration',
    "The project's key set has no such key: the key was rotated away, or the issuer is another one.",
    TokenRefused,
    status=401,
    meaning="The key set of the server has no key with the `kid` and the type that the token names.",
    causes=(
        "The signing key was rotated, and the server still has the old key set.",
        "The old key was taken out of the key set while tokens signed with it were still in use.",
        "The token comes from another issuer.",
    ),
    where=(Where.CONNECT, Where.JOIN, Where.SYSTEM, Where.HTTP),
)

CONNECT_FAILED = Reason(
    "ErrorConnectingToWebsocket",
    "Error connecting to Realtime",
    "The server failed; its log has the traceback.",
    Unavailable,
    Retry.BACKOFF,
    status=500,
    meaning="Something failed that nobody foresaw while a socket was opened: a fault of the server.",
    causes=("A bug. The log has a traceback at the same moment; please report it.",),
    where=(Where.CONNECT,),
)

# Joins ------------------------------------------------------------------------------------------------------

UNMATCHED_TOPIC = Reason(
    "UnmatchedTopic",
    "unmatched topic",
    "Topics start with `realtime:`, and a topic has to be joined before anything is sent to it.",
    BadRequest,
    prefixed=False,
    meaning="A message was sent to a topic that is not joined, or a topic was joined that cannot exist.",
    causes=(
        "The topic lacks the prefix `realtime:`.",
        "The channel was closed or refused before, and the client went on sending.",
        "A reconnected client sends before it has joined again.",
    ),
    where=(Where.JOIN, Where.REPLY),
)
TOPIC_NAME_REQUIRED = Reason(
    "TopicNameRequired",
    "You must provide a topic name",
    "Join `realtime:<name>`; the name after the colon was empty.",
    BadRequest,
    meaning="A join named no topic.",
    causes=("The channel name was an empty string, often from a variable that was not set yet.",),
    where=(Where.JOIN,),
)
UNREADABLE_JOIN = Reason(
    "UnknownErrorOnChannel",
    "{detail}",
    "The join payload could not be used as it is: see the field that is named.",
    BadRequest,
    meaning="The payload of a join is not what a join can be.",
    causes=(
        "The client was written by hand and differs from the protocol in the field that is named.",
        "The payload is not a JSON object, or is nested too deeply.",
    ),
    where=(Where.JOIN,),
)
UNAUTHORIZED = Reason(
    "Unauthorized",
    "You do not have permissions to read from this Channel topic: {topic}",
    "A private channel needs a SELECT policy on realtime.messages that is true for this role and topic; "
    "policies see the topic as realtime.topic() and the kind as the column `extension`.",
    Denied,
    status=403,
    meaning="No policy lets this role receive anything on this private channel.",
    causes=(
        "There is no SELECT policy on `realtime.messages` for the role of the token.",
        "The policy compares the wrong topic: it sees the name without `realtime:`.",
        "The user's token was not sent with the join, so the API key's role `anon` was asked.",
        "The policy looks something up in a table that row level security hides from the role.",
    ),
    where=(Where.JOIN, Where.SYSTEM),
)
PERMISSION_REVOKED = Reason(
    "Unauthorized",
    "You no longer have permission to read from this Channel topic: {topic}",
    "The SELECT policy on realtime.messages is no longer true for the new token.",
    Denied,
    meaning="The policies grant less to a channel's new token than they granted to the one before.",
    causes=(
        "The user signed out or another one signed in, and the same channel went on with the new token.",
        "A membership, or a policy, changed while the channel was open.",
        "The new token has another role, or lacks a claim the policy reads.",
    ),
    where=(Where.SYSTEM,),
)
BROADCAST_DENIED = Reason(
    "Unauthorized",
    "You do not have permissions to send to this Channel topic: {topic}",
    "Sending to a private channel needs an INSERT policy on realtime.messages that is true for this role, "
    "topic and extension `broadcast`.",
    Denied,
    status=403,
    meaning="The sender may receive on this private channel, but not send broadcasts to it.",
    causes=(
        "There is no INSERT policy on `realtime.messages` for the role, or it is false for this topic.",
        "The policy asks for another `extension` than `broadcast`.",
    ),
    where=(Where.REPLY, Where.SYSTEM, Where.BATCH),
)
PRESENCE_DENIED = Reason(
    "Unauthorized",
    "You do not have permissions to track presence on this Channel topic: {topic}",
    "Tracking on a private channel needs an INSERT policy on realtime.messages that is true for this role, "
    "topic and extension `presence`.",
    Denied,
    meaning="The sender may join this private channel, but not track itself on it.",
    causes=(
        "There is no INSERT policy on `realtime.messages` for the role, or it is false for this topic.",
        "The policy asks for another `extension` than `presence`.",
    ),
    where=(Where.REPLY,),
)
PRIVATE_ONLY = Reason(
    "PrivateOnly",
    "This project only allows private channels",
    "Join with `private: true`.",
    Denied,
    meaning="A public channel was joined on a server that has none.",
    causes=(
        "The server runs with `private_only`.",
        "The client forgot `config: { private: true }`.",
    ),
    where=(Where.JOIN,),
)
CHANNEL_LIMIT = Reason(
    "ChannelRateLimitReached",
    "Too many channels",
    "One socket may hold only so many channels: leave those that are no longer needed, or raise the limit.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="A socket already holds as many channels as it may.",
    causes=(
        "Channels are opened again and again, for instance at each render, and never removed.",
        "The page needs more channels than `max_channels` allows.",
    ),
    where=(Where.JOIN,),
)
CONNECTION_LIMIT = Reason(
    "ConnectionRateLimitReached",
    "Too many connected users",
    "The server's connection limit is reached.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="The server already serves as many users as it may.",
    causes=(
        "Clients are created again and again and never disconnected.",
        "There are more users than `max_concurrent_users` allows.",
    ),
    where=(Where.CONNECT, Where.JOIN),
)
RESTARTING = Reason(
    "RealtimeRestarting",
    "Realtime is restarting, please standby",
    "The server is going down in good order; join again after reconnecting.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
    meaning="The server is on its way down and takes no more joins.",
    causes=("It is being deployed, or stopped by an operator.",),
    where=(Where.JOIN,),
)
DATABASE_UNREACHABLE = Reason(
    "UnableToConnectToProject",
    "Realtime was unable to connect to the project database",
    "Private channels and row changes need Postgres. Check that it runs and that the server's login works; "
    "public broadcast channels keep working meanwhile.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
    meaning="Something needs Postgres, and Postgres cannot be reached or refuses the server.",
    causes=(
        "Postgres is down, restarting or failing over.",
        "The address, the login or the password of the server is wrong, or a firewall is in between.",
        "Postgres has no connection left.",
        "`backbeat migrate` never ran in this database, or is older than the server.",
    ),
    where=(Where.JOIN, Where.SYSTEM, Where.BATCH),
)
POLICY_FAILED = Reason(
    "Unauthorized",
    "You do not have permissions to read from this Channel topic: {topic}",
    "A policy on realtime.messages raised an error, so nothing is granted.",
    Denied,
    status=403,
    meaning="A policy could not be evaluated, and what cannot be evaluated grants nothing.",
    causes=(
        "A SELECT policy on `realtime.messages` raised an error: a bad cast, a missing function or grant.",
        "The `role` of the token does not exist, or the server's login is not a member of it.",
        "The topic or the token holds a character that Postgres cannot store.",
    ),
    where=(Where.JOIN, Where.SYSTEM, Where.BATCH),
)
MISSING_PARTITION = Reason(
    "MissingPartition",
    "Realtime was unable to find the expected messages partition",
    "realtime.messages has no partition for today: run `backbeat migrate`, or keep a server running.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
    meaning="`realtime.messages` has no partition for today, so its policies cannot be asked.",
    causes=(
        "No server ran for some days, so nobody made the partitions ahead.",
        "The server's login may not act as the owner of the table.",
        "Partitions were dropped by hand.",
    ),
    where=(Where.JOIN, Where.SYSTEM, Where.BATCH),
)
QUERY_CANCELED = Reason(
    "QueryCanceled",
    "Query was cancelled, please try again",
    "A policy on realtime.messages took longer than 5 seconds, or someone cancelled it.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
    meaning="Postgres gave up on a question before it was answered.",
    causes=(
        "A policy on `realtime.messages` is slow: it lacks an index, or calls a function for each row.",
        "A policy waits for a lock that a migration holds.",
        "An administrator cancelled the query.",
    ),
    where=(Where.JOIN, Where.SYSTEM, Where.BATCH),
)
REPLAY_PUBLIC = Reason(
    "UnableToReplayMessages",
    "Replay is not allowed for public channels",
    "Stored messages belong to private channels: join with `private: true`, or leave `replay` away.",
    BadRequest,
    meaning="A public channel asked for stored messages, which only private channels have.",
    causes=("`replay` was configured without `private: true`.",),
    where=(Where.JOIN,),
)
REPLAY_MALFORMED = Reason(
    "UnableToReplayMessages",
    "Replay params are not valid",
    "`since` is an integer, milliseconds since 1970; `limit` is an integer from 1 to 25, or left away.",
    BadRequest,
    meaning="A join asked for stored messages in a way that cannot be understood.",
    causes=(
        "`since` is a date or a text instead of milliseconds.",
        "`limit` is below 1, above 25, or not an integer.",
    ),
    where=(Where.JOIN,),
)
NOT_REPLICATING = Reason(
    "ReplicationConnectionTimeout",
    "Replication connection was not established in time",
    "Broadcasts from the database do not arrive: the server's log and /ready say why.",
    Unavailable,
    Retry.BACKOFF,
    meaning="A private channel that wanted to be told waited in vain for the replication stream.",
    causes=(
        "The database has no replication slot or walsender left.",
        "The server's login lacks REPLICATION, or `wal_level` is not `logical`.",
        "A write transaction has been open for long: the slot is made when it ends.",
    ),
    where=(Where.SYSTEM,),
)
REPLAY_FAILED = Reason(
    "UnableToReplayMessages",
    "Realtime was unable to replay messages",
    "The stored messages could not be read; the server's log says why.",
    Unavailable,
    Retry.BACKOFF,
    status=503,
    meaning="The stored messages that a join asked for could not be read.",
    causes=(
        "The database is away.",
        "`realtime.messages` was altered, or `backbeat migrate` is older than the server.",
    ),
    where=(Where.JOIN,),
)
POOL_EXHAUSTED = Reason(
    "IncreaseConnectionPool",
    "Please increase your connection pool size",
    "Too many joins waited for a database connection at once.",
    Unavailable,
    Retry.BACKOFF,
    status=429,
    meaning="Every database connection stayed busy for as long as a caller may wait.",
    causes=(
        "Very many private channels are joined at once, as after a restart.",
        "The policies on `realtime.messages` are slow.",
        "`database_connections` is too small for the traffic.",
    ),
    where=(Where.JOIN, Where.SYSTEM, Where.BATCH),
)
JOIN_BACKLOG = Reason(
    "UnknownErrorOnChannel",
    "Too many messages while the channel was joining",
    "Wait for the reply to the join before sending.",
    RateLimited,
    Retry.BACKOFF,
    meaning="More than 100 messages arrived for a channel while its join, or a new token, was being decided.",
    causes=(
        "The client sends without waiting for the reply to its join.",
        "The policies are slow, so the decision takes long.",
    ),
    where=(Where.REPLY,),
)
UNKNOWN_ERROR = Reason(
    "UnknownErrorOnChannel",
    "Unknown Error on Channel",
    "The server failed; its log has the traceback.",
    Unavailable,
    Retry.BACKOFF,
    prefixed=False,
    meaning="Something failed that nobody foresaw: a fault of the server.",
    causes=("A bug. The log has a traceback at the same moment; please report it.",),
    where=(Where.JOIN,),
)

# Pushes -----------------------------------------------------------------------------------------------------

PAYLOAD_TOO_LARGE = Reason(
    "PayloadSizeExceeded",
    "payload_size_exceeded",
    "The broadcast is larger than the server's payload limit.",
    BadRequest,
    status=413,
    prefixed=False,
    meaning="A broadcast is larger than the server takes.",
    causes=(
        "A file or an image is sent inside a message; send its address.",
        "`max_payload_bytes` is smaller than the application needs.",
    ),
    where=(Where.REPLY, Where.SYSTEM),
)
PAYLOAD_NOT_OBJECT = Reason(
    "InvalidBroadcastPayload",
    "Broadcast payload must be a map",
    "The payload of a message is a JSON object; wrap other values in one.",
    BadRequest,
    prefixed=False,
    meaning="The payload of a broadcast is not a JSON object.",
    causes=("A text, a number or a list was sent as it is.",),
    where=(Where.REPLY, Where.SYSTEM),
)
PRESENCE_NOT_OBJECT = Reason(
    "InvalidPresencePayload",
    "Presence track payload must be a map",
    "Track a JSON object.",
    BadRequest,
    prefixed=False,
    meaning="What was tracked is not a JSON object.",
    causes=("A text, a number or a list was tracked as it is.",),
    where=(Where.REPLY,),
)
PRESENCE_UNKNOWN_EVENT = Reason(
    "UnknownPresenceEvent",
    "Unknown presence event",
    "Presence understands `track` and `untrack`.",
    BadRequest,
    prefixed=False,
    meaning="A presence message is neither `track` nor `untrack`.",
    causes=("The client was written by hand, or is newer than this server.",),
    where=(Where.REPLY,),
)
PRESENCE_TOO_LARGE = Reason(
    "ClientPresenceRateLimitReached",
    "Track message size exceeded",
    "The tracked object is larger than the server's payload limit.",
    RateLimited,
    Retry.SLOW,
    meaning="A tracked object is larger than the server takes; the channel is closed.",
    causes=("A whole document is tracked; everybody in the channel would get a copy at each join.",),
    where=(Where.SYSTEM,),
)

# Change subscriptions (system messages: the code is not written on the wire) --------------------------------

CHANGES_NO_PARAMS = Reason(
    "RealtimeDisabledForConfiguration",
    "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {dump}",
    "Give `schema` and `table` as text; `*` stands for every published table.",
    BadRequest,
    prefixed=False,
    meaning="A subscription to row changes names nothing that could be subscribed to.",
    causes=(
        "`schema` and `table` are missing or not text.",
        "A key is misspelt, so the server does not know it.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_BAD_SELECT = Reason(
    "RealtimeDisabledForConfiguration",
    'Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]',
    'Give a list of column names, like `["id", "title"]`.',
    BadRequest,
    prefixed=False,
    meaning="The columns of a subscription to row changes are not a list of names.",
    causes=("`select` was given as one text with commas, as PostgREST wants it.",),
    where=(Where.SYSTEM,),
)
CHANGES_BAD_NUMBERS = Reason(
    "RealtimeDisabledForConfiguration",
    'Error parsing `big_numbers` params: expected "number" or "text"',
    'Give "text" to get `int8` and `numeric` as strings, which JavaScript does not round.',
    BadRequest,
    prefixed=False,
    meaning="A subscription to row changes asks for big numbers in a form there is not.",
    causes=("`big_numbers` is neither `number` nor `text`.",),
    where=(Where.SYSTEM,),
)
CHANGES_BAD_FILTER = Reason(
    "RealtimeDisabledForConfiguration",
    "Error parsing `filter` params: {detail}",
    "A filter is `column=operator.value`, several are joined by commas.",
    BadRequest,
    prefixed=False,
    meaning="The filter of a subscription to row changes cannot be understood.",
    causes=(
        "The operator or the dot before the value is missing.",
        "A value with a comma or a parenthesis is not quoted.",
        "The list of `in` has no parentheses, or more than 100 values.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_NO_TABLE = Reason(
    "RealtimeDisabledForConfiguration",
    "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given "
    "connect parameters: {params}",
    "No such table in the publication. Run: alter publication supabase_realtime add table <schema>.<table>;",
    BadRequest,
    prefixed=False,
    meaning="The table of a subscription to row changes does not exist or is not published.",
    causes=(
        "The table was never added to the publication.",
        "The schema or the table is misspelt; the names are case-sensitive.",
        "The server was started with another `publication`.",
        "The table is partitioned, and its partitions are published under their own names.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_REFUSED = Reason(
    "RealtimeDisabledForConfiguration",
    "Unable to subscribe to changes with given parameters. An exception happened so please check your "
    "connect parameters: {params}. Exception: {detail}",
    "The column must exist and be selectable by the token's role, and the value must suit its type.",
    BadRequest,
    prefixed=False,
    meaning="Postgres refused something in a subscription to row changes.",
    causes=(
        "The column of the filter does not exist.",
        "The publication leaves out the event: `publish = 'insert'` has no UPDATE.",
        "The role of the token may not read the column, or any column of the table.",
        "The value of the filter cannot be read as the type of the column.",
        "The type of the column does not have the operator: no `lt` for `json`, no `like` for numbers.",
        "The pattern of `like` or `match` is not complete.",
        "The publication leaves the column out: it lists others, or the column is generated.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_UNFILTERED = Reason(
    "UnableToSubscribeToPostgres",
    "Unable to subscribe to changes: the filter on column {detail} takes too long, or fails",
    "Simplify the pattern. The server tries again after half a minute, and tells which changes are missing.",
    Unavailable,
    Retry.BACKOFF,
    prefixed=False,
    meaning="A filter of a subscription to row changes cannot be evaluated, so it lets nothing through.",
    causes=(
        "A regular expression takes long on the values of the column: nested repetitions and backreferences.",
        "The values are large, and the pattern looks at all of each.",
        "Postgres is busy: a filter has a tenth of a second.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_UNDECIDED = Reason(
    "UnableToSubscribeToPostgres",
    "Unable to subscribe to changes: the policies of {detail} fail, or take too long",
    "Read the table as the role of the token, with its claims: a policy raises an error, or takes more than "
    "a second. The server goes on trying, and tells which changes are missing.",
    Unavailable,
    Retry.BACKOFF,
    prefixed=False,
    meaning="Postgres does not say whether a changed row may be seen; what it does not allow is not sent.",
    causes=(
        "A policy raises an error for this row or this user: a division, a cast, a function that fails.",
        "A policy searches a table without an index.",
        "Somebody has locked the table for a minute.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_UNAVAILABLE = Reason(
    "UnableToSubscribeToPostgres",
    "Unable to subscribe to changes: {detail}",
    "The server keeps trying; changes made until it succeeds are not delivered.",
    Unavailable,
    Retry.BACKOFF,
    prefixed=False,
    meaning="Row changes do not arrive at the moment.",
    causes=(
        "The database is away, or the replication stream was lost.",
        "The address of the database leads to a standby that nobody has promoted.",
        "Postgres has no replication slot or walsender left.",
        "The server's login lacks REPLICATION, or `wal_level` is not `logical`.",
    ),
    where=(Where.SYSTEM,),
)
CHANGES_SELECT_WILDCARD = Reason(
    "RealtimeDisabledForConfiguration",
    "Column selection is not supported for wildcard subscriptions. "
    "Provide an explicit schema and table name.",
    "Subscribe to each table by its name, or leave `select` away.",
    BadRequest,
    prefixed=False,
    meaning="Columns were chosen in a subscription that is not for one table.",
    causes=("`select` was given together with `table: '*'` or `schema: '*'`.",),
    where=(Where.SYSTEM,),
)

# Connections ------------------------------------------------------------------------------------------------

ORIGIN_REFUSED = Reason(
    "OriginNotAllowed",
    "Origin not allowed",
    "Add the origin of the page to `allowed_origins`: scheme, host and port, as the address bar shows them.",
    Denied,
    status=403,
    meaning="A page of an origin that is not on the server's list tried to open a socket.",
    causes=(
        "The list lacks a domain, a port or a preview deployment of the site.",
        "The page is served over http while the list says https, or the other way round.",
        "A page of somebody else uses this server.",
    ),
    where=(Where.CONNECT,),
)
HANDSHAKE_INVALID = Reason(
    "InvalidHandshake",
    "No valid WebSocket handshake: {detail}",
    "Open /realtime/v1/websocket or /socket/websocket with a WebSocket client; a proxy in between has to "
    "pass the headers `Connection` and `Upgrade` on.",
    BadRequest,
    status=400,
    meaning="A request for an upgrade is not one that a WebSocket can be opened with.",
    causes=(
        "The path is misspelt.",
        "`vsn` is neither 1.0.0 nor 2.0.0.",
        "A proxy changes or drops headers of the handshake.",
        "The client was written by hand and differs from RFC 6455 in what is named.",
    ),
    where=(Where.CONNECT,),
)
HEAD_TOO_LARGE = Reason(
    "RequestHeadTooLarge",
    "The request head is too large",
    "Send fewer or smaller headers, cookies above all; or raise `max_head_bytes` and `max_headers`.",
    BadRequest,
    status=431,
    meaning="The headers of a request are too many, or too large together.",
    causes=(
        "Cookies have piled up on the domain that the server shares with a site.",
        "A proxy adds a header at each hop.",
        "Somebody tries how much memory a request can take.",
    ),
    where=(Where.CONNECT, Where.HTTP),
)
TARGET_TOO_LONG = Reason(
    "RequestTargetTooLong",
    "The request line is too long",
    "Put less into the URL, or raise `max_head_bytes`: the path and the query may take half of it.",
    BadRequest,
    status=414,
    meaning="The path and the query of a request are too long.",
    causes=("Something large was put into `params` of the client, or into the query.",),
    where=(Where.CONNECT, Where.HTTP),
)
REQUEST_MALFORMED = Reason(
    "MalformedHttpRequest",
    "The request is not valid HTTP/1.1",
    "Check that the client speaks HTTP to this port, with TLS if the server has a certificate and without if "
    "it has none.",
    BadRequest,
    status=400,
    meaning="What arrived on a new connection is no HTTP request.",
    causes=(
        "A client speaks TLS, or HTTP/2, to a port that does not.",
        "A scanner tries what answers here.",
    ),
    where=(Where.CONNECT, Where.HTTP),
)
REQUEST_TIMEOUT = Reason(
    "RequestTimeout",
    "The request took too long to arrive",
    "Send the request at once after connecting; on slow lines raise `handshake_timeout`, and "
    "`message_timeout` for bodies.",
    Unavailable,
    Retry.BACKOFF,
    status=408,
    meaning="A connection was opened and no whole request came in time.",
    causes=(
        "A browser or a proxy opened a connection ahead of time and had no use for it.",
        "The line is very slow, or lost packets.",
        "Somebody sends a byte now and then to hold connections.",
    ),
    where=(Where.CONNECT, Where.HTTP),
)
CONNECTIONS_LIMIT = Reason(
    "TooManyConnections",
    "Too many connections",
    "Wait before connecting again, longer each time; or raise `max_connections`, and with it the open files "
    "the process may have.",
    RateLimited,
    Retry.SLOW,
    status=503,
    meaning="The server has as many connections as it may have, those of HTTP requests included.",
    causes=(
        "More clients than `max_connections`.",
        "Clients open a socket at each render, and never close one.",
        "Somebody opens connections to use them up: see `max_connections_per_address`.",
    ),
    where=(Where.CONNECT, Where.HTTP),
)
ADDRESS_LIMIT = Reason(
    "TooManyConnectionsFromAddress",
    "Too many connections from this address",
    "Close what is not needed; or raise `max_connections_per_address`. Behind a proxy name it in "
    "`trusted_proxies`, or all clients count as one address.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="One network address has as many connections as one may have.",
    causes=(
        "Many people share an address: an office, a mobile network.",
        "The server runs behind a proxy that it was not told of, so that everybody has the proxy's address.",
        "A client opens a socket at each render, and never closes one.",
    ),
    where=(Where.CONNECT, Where.HTTP),
)

# Limits -----------------------------------------------------------------------------------------------------

JOIN_LIMIT_CONNECT = Reason(
    "JoinsRateLimitReached",
    "Too many joins per second",
    "Wait before connecting again, longer each time; or raise `max_joins_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="More sockets open and channels join per second than the server allows.",
    causes=(
        "A client connects again at once, for ever, after each refusal.",
        "Everybody comes back at the same time, for instance after a restart.",
        "`max_joins_per_second` is too low for this many users.",
    ),
    where=(Where.CONNECT,),
)
JOIN_LIMIT = Reason(
    "ClientJoinRateLimitReached",
    "Too many joins per second",
    "Join each topic once and keep the channel, instead of leaving and joining again; or raise "
    "`max_joins_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="This socket joins channels faster than the server allows; the socket is closed.",
    causes=(
        "Channels are opened and removed in a loop, for instance at each render.",
        "The page joins hundreds of channels in one go.",
        "`max_joins_per_second` is too low for this many users.",
    ),
    where=(Where.JOIN,),
)
EVENTS_LIMIT = Reason(
    "MessagePerSecondRateLimitReached",
    "Too many messages per second",
    "Send less often: the newest position a few times per second instead of each one; or raise "
    "`max_events_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="Whoever is told this sent more messages than its share of what the server takes per second.",
    causes=(
        "A message is sent at each mouse move, key press or frame.",
        "Two clients answer each other's messages without an end.",
        "`max_events_per_second` is too low for this many users.",
    ),
    where=(Where.SYSTEM,),
)
PRESENCE_LIMIT = Reason(
    "PresenceRateLimitReached",
    "Too many presence messages per second",
    "Track what seldom changes, and broadcast what often does; or raise `max_presence_events_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="Whoever is told this tracked and untracked more often than its share allows.",
    causes=(
        "Something that changes all the time, such as a cursor, is tracked.",
        "`max_presence_events_per_second` is too low for this many users.",
    ),
    where=(Where.SYSTEM,),
)
CLIENT_PRESENCE_LIMIT = Reason(
    "ClientPresenceRateLimitReached",
    "Client presence rate limit exceeded",
    "Track what seldom changes, and broadcast what often does; or raise "
    "`max_client_presence_events_per_window`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    meaning="A channel tracked and untracked more often than one may, by default 5 times in 30 seconds.",
    causes=(
        "`track` is called at each render, or at each key press.",
        "Something that changes all the time, such as a cursor, is tracked.",
    ),
    where=(Where.SYSTEM,),
)
HTTP_REQUESTS_LIMIT = Reason(
    "MessagePerSecondRateLimitReached",
    "Too many requests",
    "Put several messages into one request, send fewer requests, or raise `max_events_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    prefixed=False,
    meaning="More HTTP requests arrive per second than the server takes.",
    causes=("Each message is sent in a request of its own.",),
    where=(Where.HTTP,),
)
HTTP_EVENTS_LIMIT = Reason(
    "MessagePerSecondRateLimitReached",
    "You have exceeded your rate limit",
    "Send less often, or raise `max_events_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    prefixed=False,
    meaning="More messages were sent over HTTP than its share of what the server takes per second.",
    causes=("A job sends a message for every row it touches.",),
    where=(Where.HTTP,),
)
HTTP_BATCH_LIMIT = Reason(
    "MessagePerSecondRateLimitReached",
    "Too many messages to broadcast, please reduce the batch size",
    "Nothing was sent. Cut the batch into smaller ones and send them one after the other, or raise "
    "`max_events_per_second`.",
    RateLimited,
    Retry.SLOW,
    status=429,
    prefixed=False,
    meaning="One more message could be sent at this moment, but not the whole batch.",
    causes=(
        "The batch holds more messages than the server takes per second.",
        "Several batches follow each other closely.",
    ),
    where=(Where.HTTP,),
)

# HTTP -------------------------------------------------------------------------------------------------------

HTTP_UNAUTHORIZED = Reason(
    "Unauthorized",
    "Unauthorized",
    "Send the project's key in the header `apikey`, or a user's token as `Authorization: Bearer <token>`.",
    TokenRefused,
    status=401,
    meaning="The HTTP request carries no token, or none that this server believes.",
    causes=(
        "Neither `apikey` nor `Authorization` was sent, or a proxy removed them.",
        "The token has expired, or was signed for another project.",
    ),
    where=(Where.HTTP,),
)
HTTP_DENIED = Reason(
    "Unauthorized",
    "Unauthorized",
    "Sending to a private channel needs an INSERT policy on realtime.messages that is true for this role, "
    "topic and extension `broadcast`.",
    Denied,
    status=403,
    meaning="The token is good, but its role may not send to this private channel.",
    causes=(
        "No INSERT policy on realtime.messages is true for the topic.",
        "The request was made with the API key in place of the user's token.",
    ),
    where=(Where.HTTP,),
)
HTTP_POLICY_FAILED = Reason(
    "RlsPolicyError",
    "RLS policy error",
    "Mend the policy on realtime.messages; the server's log has the error and its SQLSTATE.",
    Denied,
    status=422,
    meaning="A policy on realtime.messages raised an error, so nothing may be sent.",
    causes=(
        "A policy calls a function, or reads a table, that the role of the token may not use.",
        "The role of the token does not exist, or the server may not act as it.",
    ),
    where=(Where.HTTP,),
)
HTTP_QUERY_CANCELED = Reason(
    "QueryCanceled",
    "Query canceled",
    "Make the policy cheaper: an index on what it compares usually does it.",
    Unavailable,
    Retry.BACKOFF,
    status=422,
    meaning="The policies on realtime.messages gave no answer in time.",
    causes=("A policy took longer than 5 seconds.", "Somebody cancelled the query."),
    where=(Where.HTTP,),
)
HTTP_MISSING_PARTITION = Reason(
    "MissingPartition",
    "Missing messages partition",
    "Run `backbeat migrate`, or keep a server running: it makes partitions ahead of time.",
    Unavailable,
    Retry.BACKOFF,
    status=422,
    meaning="realtime.messages has no partition for today, so its policies cannot be asked.",
    causes=("No server has been running for days.",),
    where=(Where.HTTP,),
)
HTTP_DATABASE_UNREACHABLE = Reason(
    "UnableToConnectToProject",
    "Tenant database unavailable",
    "Check that Postgres runs and that the server's login works; public messages are sent meanwhile.",
    Unavailable,
    Retry.BACKOFF,
    status=422,
    meaning="A private message needs the policies in Postgres, and Postgres cannot be asked.",
    causes=("The database is down or restarting.", "The schema is missing: `backbeat migrate` was not run."),
    where=(Where.HTTP,),
)
HTTP_POOL_EXHAUSTED = Reason(
    "IncreaseConnectionPool",
    "Connection pool exhausted",
    "Try again later, or give the server more database connections.",
    Unavailable,
    Retry.BACKOFF,
    status=429,
    meaning="Too many requests and joins waited for a database connection at once.",
    causes=("Many private joins or messages at once.", "Policies that take long."),
    where=(Where.HTTP,),
)
HTTP_FIELD_BLANK = Reason(
    "UnprocessableEntity",
    "can't be blank",
    'A batch is `{"messages": [{"topic": "…", "event": "…", "payload": {…}}, …]}`; the topic has no '
    "`realtime:` in front.",
    BadRequest,
    status=422,
    meaning="A field that every message needs is missing or empty; nothing was sent.",
    causes=("The field is misspelt.", "The body is empty, or not an object."),
    where=(Where.HTTP,),
)
HTTP_FIELD_INVALID = Reason(
    "UnprocessableEntity",
    "is invalid",
    "`topic`, `event` and `id` are text, `payload` is an object, `private` is true or false.",
    BadRequest,
    status=422,
    meaning="A field is not of the type it has to be; nothing was sent.",
    causes=("A payload that is an array or text: wrap it in an object.", "`private` sent as text."),
    where=(Where.HTTP,),
)
HTTP_PAYLOAD_TOO_LARGE = Reason(
    "UnprocessableEntity",
    "Payload size exceeds tenant limit",
    "Send less, or raise `max_payload_bytes`.",
    BadRequest,
    status=422,
    meaning="The payload of a message is larger than this server passes on; nothing was sent.",
    causes=("A file sent as a message, in place of its address.",),
    where=(Where.HTTP,),
)
HTTP_EVENT_TOO_LONG = Reason(
    "UnprocessableEntity",
    "should be at most 255 byte(s)",
    "Choose a shorter name for the event, or send a batch, whose messages have no such limit.",
    BadRequest,
    status=422,
    meaning="The name of the event does not fit into the header of a binary message.",
    causes=("Data that belongs into the payload was put into the name of the event.",),
    where=(Where.HTTP,),
)
HTTP_MALFORMED_JSON = Reason(
    "MalformedRequest",
    "The request body is not valid JSON",
    "Send JSON text in UTF-8, without a byte order mark.",
    BadRequest,
    status=400,
    meaning="The body was announced as JSON and cannot be read as such.",
    causes=("An object was sent without serializing it.", "The body was cut off, or is nested too deeply."),
    where=(Where.HTTP,),
)
HTTP_BODY_TOO_LARGE = Reason(
    "RequestTooLarge",
    "The request body is larger than 8 MB",
    "Split the batch.",
    BadRequest,
    status=413,
    meaning="The body was not read to its end: no request needs that much.",
    causes=("A batch of too many or too large messages.",),
    where=(Where.HTTP,),
)
HTTP_UNSUPPORTED_MEDIA_TYPE = Reason(
    "UnsupportedMediaType",
    "Unsupported Media Type. Use {accepted}",
    "Set the header `Content-Type`: some tools send a form unless they are told otherwise.",
    BadRequest,
    status=415,
    meaning="The body is of a type this endpoint does not read.",
    causes=("`curl --data` without a `Content-Type` header.",),
    where=(Where.HTTP,),
)
HTTP_NOT_ACCEPTABLE = Reason(
    "NotAcceptable",
    "Not acceptable: this server answers with application/json",
    "Send `Accept: application/json`, or no such header.",
    BadRequest,
    status=406,
    meaning="The header `Accept` rules out JSON, the only thing this API answers with.",
    causes=("A browser or a tool asked for a page.",),
    where=(Where.HTTP,),
)
HTTP_NOT_FOUND = Reason(
    "NotFound",
    "not found",
    "GET /api/openapi describes what is here; `/` in a topic or an event is written %2F.",
    BadRequest,
    status=404,
    meaning="The API has nothing at this path.",
    causes=("A misspelt path.", "A topic or event with a `/` that was not percent-encoded, or an empty one."),
    where=(Where.HTTP,),
)
HTTP_METHOD_NOT_ALLOWED = Reason(
    "MethodNotAllowed",
    "method not allowed",
    "The header `Allow` of the answer names the methods that work here.",
    BadRequest,
    status=405,
    meaning="The path is right, the method is not.",
    causes=("A GET where messages are sent with POST.", "A redirect that turned a POST into a GET."),
    where=(Where.HTTP,),
)
HTTP_FAILED = Reason(
    "UnknownErrorOnController",
    "Unknown error",
    "The server failed; its log has the traceback under the `x-request-id` of the answer.",
    Unavailable,
    Retry.BACKOFF,
    status=500,
    meaning="A mistake of this server; whether the message was sent is not known.",
    causes=("A defect: please report it with the traceback.",),
    where=(Where.HTTP,),
)

REASONS: dict[str, Reason] = {
    name: value for name, value in list(globals().items()) if isinstance(value, Reason)
}
"""Every reason by its name in this module."""
