"""The opening handshake of RFC 6455: which requests are valid, and what is answered."""

from base64 import b64encode
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from backbeat.errors import ProtocolError
from backbeat.websocket.handshake import (
    END_OF_HEAD,
    MAX_HEAD,
    MAX_QUERY_FIELDS,
    HandshakeError,
    UpgradeRequest,
    accept,
    parse_head,
    refuse,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
VALID = {
    "Host": "rockon.test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(line: str = "GET /chat HTTP/1.1", /, *more: str, **changed: str | None) -> bytes:
    """A valid request head, but for what is changed: names have `_` for `-`, and `None` removes a header."""
    changes = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    fields = {name: changes.get(name.lower(), value) for name, value in VALID.items()}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None), *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def fields_of(response: bytes) -> list[tuple[str, str]]:
    """The headers of a response, in order."""
    lines = response.partition(END_OF_HEAD)[0].decode("latin-1").split("\r\n")
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]


# --- Reading ------------------------------------------------------------------------------------------------


def test_valid_request() -> None:
    """A valid request becomes its path, query and headers."""
    request = parse_head(head("GET /socket/websocket?apikey=k&vsn=2.0.0 HTTP/1.1"))
    assert request == UpgradeRequest(
        path="/socket/websocket",
        query={"apikey": "k", "vsn": "2.0.0"},
        headers={
            "host": "rockon.test",
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-key": KEY,
            "sec-websocket-version": "13",
        },
    )


def test_the_empty_line_may_be_missing() -> None:
    """A head is read with or without the empty line that ends it."""
    assert parse_head(head().removesuffix(END_OF_HEAD)) == parse_head(head())


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/a%20b", "/a%20b", {}),
        ("//evil.test/x", "//evil.test/x", {}),
        ("/?", "/", {}),
        ("/?a=1&b=2", "/", {"a": "1", "b": "2"}),
        ("/?a=1&a=2", "/", {"a": "2"}),
        ("/?a=&b", "/", {"a": "", "b": ""}),
        ("/?a=%E2%99%AB+%26", "/", {"a": "♫ &"}),
        ("/?a=http://x/?y", "/", {"a": "http://x/?y"}),
        ("http://rockon.test:4000/chat?a=1", "/chat", {"a": "1"}),
        ("HTTPS://rockon.test/chat", "/chat", {}),
    ],
)
def test_target(target: str, path: str, query: dict[str, str]) -> None:
    """The target, relative or absolute, is taken apart; of a repeated parameter the last value counts."""
    request = parse_head(head(f"GET {target} HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    "target",
    ["chat", "*", "/a#b", "/?a#b", "ftp://rockon.test/", "http:///chat", "/schön", "/a\tb", "", "/?%ff"],
)
def test_invalid_target(target: str) -> None:
    """A target that is none, or whose query is not UTF-8, is refused."""
    with pytest.raises(HandshakeError) as refused:
        parse_head(head(f"GET {target} HTTP/1.1"))
    assert refused.value.status == HTTPStatus.BAD_REQUEST


def test_too_many_query_fields() -> None:
    """A query has a limited number of fields."""
    query = "&".join(["a"] * (MAX_QUERY_FIELDS + 1))
    with pytest.raises(HandshakeError, match="query"):
        parse_head(head(f"GET /?{query} HTTP/1.1"))


@pytest.mark.parametrize(
    "line",
    [
        "POST /chat HTTP/1.1",
        "get /chat HTTP/1.1",
        "GET /chat HTTP/1.0",
        "GET /chat HTTP/2.0",
        "GET /chat",
        "GET  /chat HTTP/1.1",
        "GET /chat HTTP/1.1 ",
        "",
    ],
)
def test_invalid_request_line(line: str) -> None:
    """Only GET and HTTP/1.1, with one space between the parts, open a WebSocket."""
    with pytest.raises(HandshakeError) as refused:
        parse_head(head(line))
    assert refused.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"host": None}, "Host"),
        ({"host": ""}, "Host"),
        ({"upgrade": None}, "Upgrade"),
        ({"upgrade": "h2c"}, "Upgrade"),
        ({"upgrade": "websockets"}, "Upgrade"),
        ({"connection": None}, "Connection"),
        ({"connection": "keep-alive"}, "Connection"),
        ({"sec_websocket_key": None}, "Key"),
        ({"sec_websocket_key": ""}, "Key"),
        ({"sec_websocket_key": "dGhl"}, "Key"),
        ({"sec_websocket_key": KEY[:-1]}, "Key"),
        ({"sec_websocket_key": KEY.replace("d", "-")}, "Key"),
        ({"sec_websocket_key": KEY.replace("d", "ö")}, "Key"),
        ({"sec_websocket_key": "c2V2ZW50ZWVuIGJ5dGVzIQ=="[:-4] + "ISEh"}, "Key"),
    ],
)
def test_missing_or_wrong_header(changed: dict[str, str | None], reason: str) -> None:
    """What RFC 6455 section 4.2.1 asks for must be there and right; the reason names what is not."""
    with pytest.raises(HandshakeError, match=reason) as refused:
        parse_head(head(**changed))
    assert refused.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    "changed",
    [
        {"upgrade": "h2c, WebSocket"},
        {"connection": "keep-alive,UPGRADE"},
        {"connection": ", upgrade ,"},
        {"sec_websocket_key": f"  {KEY}\t"},
    ],
)
def test_lists_and_case(changed: dict[str, str]) -> None:
    """Upgrade and Connection are lists without case, and space around a value does not count."""
    assert parse_head(head(**changed)).key == KEY


@pytest.mark.parametrize("version", [None, "", "8", "14", "013", "13, 8"])
def test_other_version(version: str | None) -> None:
    """Another version is refused with 426 and the version we speak, even when its key looks otherwise."""
    with pytest.raises(HandshakeError) as refused:
        parse_head(head(sec_websocket_version=version, sec_websocket_key="another"))
    assert (refused.value.status, dict(refused.value.headers)["Sec-WebSocket-Version"]) == (426, "13")


@pytest.mark.parametrize(
    "line",
    [
        ": no name",
        "Name : space before the colon",
        "X-No-Colon",
        "X: folded\r\n value",
        "X: folded\r\n\tvalue",
        "X: bare\rreturn",
        "X: bare\nnewline",
        "X: nul\0",
        "X: delete\x7f",
        "Näme: not ASCII",
        "X(: no token",
        "X: 1\r\n\r\nY: 2",
    ],
)
def test_invalid_header(line: str) -> None:
    """A header that proxies may read in another way is refused."""
    with pytest.raises(HandshakeError, match="header of the request") as refused:
        parse_head(head("GET /chat HTTP/1.1", line))
    assert refused.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("line", ["Content-Length: 5", "Content-Length: 0, 5", "Transfer-Encoding: chunked"])
def test_body(line: str) -> None:
    """A request that announces a body is refused: what follows the head would be frames to us."""
    with pytest.raises(HandshakeError, match="body"):
        parse_head(head("GET /chat HTTP/1.1", line))


def test_empty_body() -> None:
    """A request that says it has no body is as good as one that says nothing."""
    assert parse_head(head("GET /chat HTTP/1.1", "Content-Length: 0")).key == KEY


@pytest.mark.parametrize("name", ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_repeated_header(name: str) -> None:
    """Host, key and version may come once only."""
    with pytest.raises(HandshakeError):
        parse_head(head("GET /chat HTTP/1.1", f"{name.lower()}: {VALID[name]}"))


def test_repeated_headers_are_joined() -> None:
    """A header that may be repeated has its values joined in their order."""
    request = parse_head(head("GET /chat HTTP/1.1", "X-Forwarded-For: a", "x-forwarded-for: b"))
    assert request.headers["x-forwarded-for"] == "a, b"


def test_header_beyond_ascii() -> None:
    """Bytes beyond ASCII are read as Latin-1, which loses none."""
    request = parse_head(head("GET /chat HTTP/1.1", "X-Band: Motörhead"))
    assert request.headers["x-band"] == "Motörhead"


def test_head_too_long() -> None:
    """A head longer than the limit is refused with 431."""
    with pytest.raises(HandshakeError) as refused:
        parse_head(head("GET /chat HTTP/1.1", "X: " + "a" * MAX_HEAD))
    assert refused.value.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_version_and_origin() -> None:
    """Version and origin have names of their own."""
    request = parse_head(head("GET /chat HTTP/1.1", "Origin: https://rockon.test"))
    assert (request.version, request.origin) == (13, "https://rockon.test")


def test_no_origin() -> None:
    """A client that is no browser has no origin."""
    assert parse_head(head()).origin is None


@pytest.mark.parametrize(
    ("lines", "offered"),
    [
        ([], ()),
        (["Sec-WebSocket-Protocol: "], ()),
        (["Sec-WebSocket-Protocol: phoenix"], ("phoenix",)),
        (["Sec-WebSocket-Protocol: phoenix , base64url.bearer"], ("phoenix", "base64url.bearer")),
        (["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b,,c"], ("a", "b", "c")),
    ],
)
def test_subprotocols(lines: list[str], offered: tuple[str, ...]) -> None:
    """The subprotocols are those offered, in the client's order."""
    assert parse_head(head("GET /chat HTTP/1.1", *lines)).subprotocols == offered


@pytest.mark.parametrize(
    ("offered", "token"),
    [
        ("phoenix, base64url.bearer.phx.c2JfcHVibGlzaGFibGVfeA", "sb_publishable_x"),
        ("base64url.bearer.phx.Pz8_Pz4-", "????>>"),
        ("base64url.bearer.phx.Pz8/Pz4+", "????>>"),
        ("phoenix, base64url.bearer.phx.", ""),
        ("phoenix, base64url.bearer.phx.!", None),
        ("phoenix, base64url.bearer.phx.w7w", None),
        ("phoenix", None),
        (None, None),
    ],
)
def test_a_token_offered_as_a_subprotocol(offered: str | None, token: str | None) -> None:
    """In both alphabets of base64, without padding; what is none is left for what it is."""
    lines = () if offered is None else (f"Sec-WebSocket-Protocol: {offered}",)
    assert parse_head(head("GET /chat HTTP/1.1", *lines)).bearer == token


def test_secrets_stay_out_of_logs() -> None:
    """The `repr` of a request shows neither its query nor its headers."""
    request = parse_head(head("GET /chat?apikey=secret HTTP/1.1", "X-Api-Key: secret"))
    assert repr(request) == "UpgradeRequest(path='/chat')"


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes(line: bytes, field: bytes) -> None:
    """Whatever the head contains, it is read or refused with a handshake error."""
    for data in (line, head().replace(b"/chat", line), head().replace(b"rockon.test", field)):
        with suppress(HandshakeError):
            parse_head(data)


def test_a_refusal_is_a_protocol_error() -> None:
    """An invalid handshake belongs to the errors a peer makes, and its text is its reason."""
    error = HandshakeError(400, "No.")
    assert isinstance(error, ProtocolError)
    assert str(error) == "No."


# --- Answering ----------------------------------------------------------------------------------------------


def test_accept() -> None:
    """The answer to the key of RFC 6455 section 1.3 is the one printed there."""
    assert accept(parse_head(head())) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )


@given(st.binary(min_size=16, max_size=16))
def test_accept_like_websockets(nonce: bytes) -> None:
    """Any key is answered as `websockets` answers it."""
    key = b64encode(nonce).decode()
    theirs = ServerProtocol().accept(Request("/chat", Headers(VALID | {"Sec-WebSocket-Key": key})))
    ours = fields_of(accept(parse_head(head(sec_websocket_key=key))))
    assert dict(ours)["Sec-WebSocket-Accept"] == theirs.headers["Sec-WebSocket-Accept"]


def test_accept_with_more() -> None:
    """A subprotocol and more headers follow the headers of the upgrade."""
    request = parse_head(head("GET /chat HTTP/1.1", "Sec-WebSocket-Protocol: a, b"))
    response = accept(request, subprotocol="b", headers=[("X-Request-Id", "r1")])
    assert fields_of(response)[3:] == [("Sec-WebSocket-Protocol", "b"), ("X-Request-Id", "r1")]


@pytest.mark.parametrize("subprotocol", ["c", "", "A"])
def test_accept_what_was_not_offered(subprotocol: str) -> None:
    """A subprotocol the client did not offer cannot be chosen."""
    request = parse_head(head("GET /chat HTTP/1.1", "Sec-WebSocket-Protocol: a, b"))
    with pytest.raises(ValueError, match="did not offer"):
        accept(request, subprotocol=subprotocol)


def test_refuse() -> None:
    """A refusal is a whole HTTP response, after which the connection closes."""
    assert refuse(401, b'{"error":"No"}', "application/json", [("X-Request-Id", "r1")]) == (
        b"HTTP/1.1 401 Unauthorized\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: 14\r\n"
        b"Connection: close\r\n"
        b"X-Request-Id: r1\r\n"
        b"\r\n"
        b'{"error":"No"}'
    )


def test_refuse_without_a_body() -> None:
    """A refusal without a body says that it has none."""
    assert ("Content-Length", "0") in fields_of(refuse(403))


@pytest.mark.parametrize("status", [101, 200, 304, 499])
def test_refuse_with_a_status_that_does_not(status: int) -> None:
    """Only a known status of an error can refuse."""
    with pytest.raises(ValueError, match=str(status)):
        refuse(status)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\0b"),
        ("X", "♫"),
        ("X\r\nY", "a"),
        ("X:", "a"),
        ("X Y", "a"),
        ("", "a"),
    ],
)
def test_no_injection(name: str, value: str) -> None:
    """A header that could add a line, or cannot be written, is an error of the caller."""
    with pytest.raises(ValueError, match="cannot be written"):
        refuse(400, headers=[(name, value)])


def test_no_injection_by_the_content_type() -> None:
    """The content type is checked like any header."""
    with pytest.raises(ValueError, match="cannot be written"):
        refuse(400, b"", "text/plain\r\nX: y")


@given(st.text("ab=&%+25C3;", max_size=30))
def test_a_query_is_read_as_the_standard_library_reads_it(query: str) -> None:
    """Whatever is escaped, empty or repeated."""
    try:
        expected = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError:
        with pytest.raises(HandshakeError):
            parse_head(head(f"GET /?{query} HTTP/1.1"))
    else:
        assert parse_head(head(f"GET /?{query} HTTP/1.1")).query == expected
