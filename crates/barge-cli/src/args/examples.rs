//! Examples and exit statuses, at the end of each command's help; and what the options of a load mean for a copy.

pub(super) const LOAD_EXAMPLES: &str = "\
Examples:
  barge load prices.csv --to sqlite:market.db --table prices --key date
      Creates the table where it is missing, with column types inferred from the file.
  barge load day1.csv.gz day2.csv.gz --to postgres://me@db.example.com/market --table prices --mode upsert
      Adds new rows and updates those that are there, by the table's primary key.
  barge load orders.csv --to sqlite:shop.db --table orders --dead-letter rejected.jsonl
      Keeps rejected rows with their reasons.
  barge load rejected.jsonl --to sqlite:shop.db
      Loads them again, each into its table, once the cause is mended.
  zcat events.jsonl.gz | barge load - --format jsonl --to postgres:// --table audit.events
      Loads standard input into this machine's PostgreSQL; what a URL leaves out comes from PGHOST and the like, and
      passwords from PGPASSWORD or ~/.pgpass.

Exit status:
  0    all rows are written
  1    an error ended the load, or more rows were rejected than --max-rejects allows
  2    the command line is wrong
  3    the load ran to its end, and some rows were rejected
  130  Ctrl-C or SIGTERM ended the load: what was read is written and reported; a second one ends at once";

pub(super) const DESCRIBE_EXAMPLES: &str = "\
Examples:
  barge describe sqlite:market.db prices
  barge describe postgres://me@localhost/market audit.events";

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  barge export sqlite:market.db prices --to prices.parquet
  barge export postgres://me@localhost/market --query 'SELECT * FROM prices WHERE close > 100' --to high.csv.gz
  barge export postgres:// audit.events --to - --format jsonl | grep login
      Standard output takes every format; the summary goes to standard error.

CSV and JSON lines hold no types: loaded again, values are what they were where the table is there, and otherwise
what --text and --column-type say, or what they look like. Parquet and Arrow IPC keep types.

Exit status:
  0    the file is whole, and in its place
  1    an error ended the export; the file's name stands for what it stood for before
  2    the command line is wrong
  130  Ctrl-C or SIGTERM ended the export; nothing of the file is left";

pub(super) const COPY_EXAMPLES: &str = "\
Examples:
  barge copy sqlite:market.db prices --to postgres://me@localhost/market
      Creates the table where it is missing, with the same primary key.
  barge copy postgres://me@db.example.com/shop orders --to sqlite:shop.db --mode upsert
  barge copy sqlite:app.db --query 'SELECT id, total FROM orders' --to sqlite:report.db --table totals --key id

All rows are those of one moment: the source is read by one statement.

Exit status:
  0    all rows are written
  1    an error ended the copy, or more rows were rejected than --max-rejects allows
  2    the command line is wrong
  3    the copy ran to its end, and some rows were rejected
  130  Ctrl-C or SIGTERM ended the copy: what was read is written and reported; a second one ends at once";

pub(super) const COPY_TABLE_HELP: &str = "\
The table to copy into; a dot parts schema and table, as in TABLE. Needed with --query [default: the name of TABLE]";

pub(super) const COPY_KEY_HELP: &str = "\
Key columns, separated by commas; may be repeated, and a column whose name has a comma goes in double quotes. A new \
table gets this primary key. Upsert and update find rows by it [default: an existing table's primary key; for a new \
table that of TABLE]";

pub(super) const COPY_MODE_HELP: &str = "\
What to do with rows and tables that are there [default: append]";
