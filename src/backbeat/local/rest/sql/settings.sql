-- What a statement of a caller may see and do, until its transaction ends (HTTP surface specification, section 5.1).
select set_config('transaction_read_only', %(read_only)s, true),
       set_config('statement_timeout', %(timeout)s, true),
       set_config('search_path', %(search_path)s, true),
       set_config('request.method', %(method)s, true),
       set_config('request.path', %(path)s, true),
       set_config('request.headers', %(headers)s, true),
       set_config('request.cookies', %(cookies)s, true)
