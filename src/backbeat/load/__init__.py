"""A load client for any server that speaks the protocol: what `backbeat bench` runs.

The decisions are in modules without I/O: `workload`, `wire`, `receipts`, `window`, `histogram`, `refusals`,
`report`. The shell around them: `member` and `crowd` (sockets), `worker` (a process of them), `baseline` (the
plainest server there can be), `crew` (the processes), `bench` (which of them does what, and when).
"""
