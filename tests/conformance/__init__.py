"""What RFC 6455 demands of a server, case by case, under the numbers of the Autobahn test suite.

The cases are data (`framing`, `utf8`, `closing`, `limits`). `run` sends them over loopback to real servers
and judges what came back; `document` makes a page of the verdicts.
"""
