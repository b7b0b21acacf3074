-- What the one asking sees of some rows: their number, who wrote them, and the columns asked for.
select p.n, {version}, {columns}
from unnest({keys}) with ordinality as p ({names}, n)
join {table} t on {match}
