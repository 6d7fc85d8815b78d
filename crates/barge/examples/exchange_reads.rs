//! The read side of an exchange: a page of users with their accounts, orders and trades, written twice.
//!
//! Both times the page is made by small functions that each ask for one thing, as handlers of an API do. Once every call is a query (N+1: one
//! for the list, and then some for each of its entries), once calls go through loaders, which make one query of all that are in flight.
//!
//! ```console
//! $ cargo run --release --example exchange_reads -p barge
//! $ cargo run --release --example exchange_reads -p barge -- --users 500 --url postgres://localhost/exchange
//! ```

#![allow(clippy::print_stdout)] // What an example has to say goes to the terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use barge::Direction::Descending;
use barge::{Cache, Database, FromRow, Key, Loader, LookUpBy, Record, TextEnum, WarmOptions};
use futures::future::try_join_all;

const CURRENCIES: [&str; 4] = ["EUR", "USD", "BTC", "ETH"];
/// Open orders that the page shows of a user.
const SHOWN: u32 = 3;

/// What a user has in a currency, in its smallest unit.
#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "accounts")]
struct Account {
    #[record(key)]
    user_id: i64,
    #[record(key)]
    currency: String,
    balance: i64,
    locked: i64,
}

#[derive(TextEnum, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[text(rename_all = "SCREAMING_SNAKE_CASE")]
enum Status {
    Open,
    Filled,
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "orders")]
struct Order {
    #[record(key)]
    id: i64,
    user_id: i64,
    status: Status,
    price: i64,
    amount: i64,
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "trades")]
struct Trade {
    #[record(key)]
    id: i64,
    order_id: i64,
    price: i64,
}

/// What the page shows of a user.
#[derive(Debug, PartialEq)]
struct Summary {
    balances: Vec<(&'static str, i64)>,
    open_orders: Vec<i64>,
    /// The price of the user's last trade, and what the order had asked for.
    traded: Option<(i64, i64)>,
}

/// Every call is a query.
struct Queries {
    db: Database,
    made: AtomicU64,
}

impl Queries {
    async fn row<R: FromRow + Record>(&self, key: impl Key) -> barge::Result<Option<R>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(self.db.get_all(&[key]).await?.pop().flatten())
    }

    async fn open_orders(&self, user: i64) -> barge::Result<Vec<Order>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(self.db.get_by(newest_open(), &[(user, Status::Open)]).await?.pop().unwrap_or_default())
    }

    async fn last_trade(&self, user: i64) -> barge::Result<Option<(i64, i64)>> {
        let Some(trade) = self.row::<Trade>(last_trade_of(user)).await? else { return Ok(None) };
        let order: Option<Order> = self.row(trade.order_id).await?;
        Ok(order.map(|order| (trade.price, order.price)))
    }

    async fn summary(&self, user: i64) -> barge::Result<Summary> {
        let mut balances = Vec::new();
        for currency in CURRENCIES {
            if let Some(account) = self.row::<Account>((user, currency)).await? {
                balances.push((currency, account.balance - account.locked));
            }
        }
        let open = self.open_orders(user).await?;
        Ok(Summary {
            balances,
            open_orders: open.iter().map(|order| order.id).collect(),
            traded: self.last_trade(user).await?,
        })
    }
}

/// The same calls through loaders.
struct Loaders {
    accounts: Loader<(i64, String), Arc<Account>>,
    orders: Loader<i64, Arc<Order>>,
    trades: Loader<i64, Arc<Trade>>,
    open_orders: Loader<(i64, Status), Arc<[Order]>>,
}

impl Loaders {
    fn start(db: &Database) -> Self {
        let seconds = Duration::from_secs;
        Loaders {
            accounts: db.loader::<Account>().cache(Cache::new(seconds(60))).start(),
            orders: db.loader::<Order>().cache(Cache::new(seconds(30))).start(),
            trades: db.loader::<Trade>().cache(Cache::new(seconds(120))).start(),
            open_orders: db.loader_by::<Order>(newest_open()).cache(Cache::new(seconds(15))).start(),
        }
    }

    async fn summary(&self, user: i64) -> barge::Result<Summary> {
        let accounts = CURRENCIES.map(|currency| (user, currency.to_owned()));
        // All at once: what one waits for, the others wait for too.
        let (accounts, open, traded) = tokio::try_join!(
            self.accounts.load_many(accounts),
            self.open_orders.load((user, Status::Open)),
            self.last_trade(user),
        )?;
        let free = |account: Arc<Account>| account.balance - account.locked;
        let balances = CURRENCIES.into_iter().zip(accounts);
        Ok(Summary {
            balances: balances.filter_map(|(currency, account)| Some((currency, free(account?)))).collect(),
            open_orders: open.unwrap_or_default().iter().map(|order| order.id).collect(),
            traded,
        })
    }

    async fn last_trade(&self, user: i64) -> barge::Result<Option<(i64, i64)>> {
        let Some(trade) = self.trades.load(last_trade_of(user)).await? else { return Ok(None) };
        let order = self.orders.load(trade.order_id).await?;
        Ok(order.map(|order| (trade.price, order.price)))
    }

    fn look_ups(&self) -> u64 {
        let (accounts, orders) = (self.accounts.statistics(), self.orders.statistics());
        let (trades, open) = (self.trades.statistics(), self.open_orders.statistics());
        accounts.look_ups + orders.look_ups + trades.look_ups + open.look_ups
    }
}

fn newest_open() -> LookUpBy {
    LookUpBy::columns(["user_id", "status"]).order_by("id", Descending).limit(SHOWN)
}

/// Where an exchange would look it up, this one knows: each user has one trade, of the second order.
fn last_trade_of(user: i64) -> i64 {
    user
}

/// A user's orders are numbered from ten times the user.
fn second_order_of(user: i64) -> i64 {
    user * 10 + 1
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut users = 200;
    let mut url = "sqlite::memory:".to_owned();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--users" => users = value.parse().context("--users takes a number")?,
            "--url" => url = value,
            other => bail!("no such argument: {other}; there are --users and --url"),
        }
    }
    let db = barge::open(&url).await?;
    fill(&db, users).await?;
    show_page(&db, users).await?;
    db.close().await?;
    Ok(())
}

async fn fill(db: &Database, users: i64) -> barge::Result<()> {
    db.create_table::<Account>().await?;
    db.create_table::<Order>().await?;
    db.create_table::<Trade>().await?;
    let account = |user_id: i64, currency: &str| Account {
        user_id,
        currency: currency.to_owned(),
        balance: 1_000 * user_id,
        locked: user_id,
    };
    let accounts: Vec<Account> = (0..users)
        // Not everybody has every currency.
        .flat_map(|user| {
            CURRENCIES[..1 + user as usize % 4].iter().map(move |currency| account(user, currency))
        })
        .collect();
    let order = |id: i64| Order {
        id,
        user_id: id / 10,
        status: if id % 2 == 0 { Status::Open } else { Status::Filled },
        price: 30_000 + id,
        amount: 1,
    };
    let orders: Vec<Order> = (0..users * 10).map(order).collect();
    let trades: Vec<Trade> = (0..users)
        .map(|user| Trade { id: last_trade_of(user), order_id: second_order_of(user), price: 30_000 })
        .collect();
    db.upsert_all(&accounts).await?;
    db.upsert_all(&orders).await?;
    db.upsert_all(&trades).await?;
    Ok(())
}

async fn show_page(db: &Database, users: i64) -> anyhow::Result<()> {
    let queries = Queries { db: db.clone(), made: AtomicU64::new(0) };
    let started = Instant::now();
    let mut one_by_one = Vec::new();
    for user in 0..users {
        one_by_one.push(queries.summary(user).await?);
    }
    let took = started.elapsed();
    println!(
        "{users} users, a query a call:  {took:>9.1?}, {} queries",
        queries.made.load(Ordering::Relaxed)
    );

    let loaders = Loaders::start(db);
    let started = Instant::now();
    let batched = try_join_all((0..users).map(|user| loaders.summary(user))).await?;
    let saved = took.as_secs_f64() / started.elapsed().as_secs_f64();
    println!(
        "the same through loaders: {:>9.1?}, {} queries: {saved:.0} times as fast",
        started.elapsed(),
        loaders.look_ups()
    );
    ensure!(batched == one_by_one, "both pages show the same");

    let before = loaders.look_ups();
    let started = Instant::now();
    try_join_all((0..users).map(|user| loaders.summary(user))).await?;
    println!(
        "once more, from memory:   {:>9.1?}, {} queries",
        started.elapsed(),
        loaders.look_ups() - before
    );

    // A write through the same database is seen at once, and only what it touched is read again.
    db.upsert_all(&[Account { user_id: 1, currency: "EUR".to_owned(), balance: 5, locked: 0 }]).await?;
    let summary = loaders.summary(1).await?;
    ensure!(summary.balances[0] == ("EUR", 5), "what was written is read");
    println!("after a write:            {} look-up more, and the new balance", loaders.look_ups() - before);

    let fresh = Loaders::start(db);
    let warmed = fresh.orders.warm((0..users).map(second_order_of), WarmOptions::default()).await?;
    println!("warmed:                   {} orders, {} of them there", warmed.keys, warmed.found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_pages_show_the_same() {
        let db = barge::open("sqlite::memory:").await.unwrap();
        fill(&db, 20).await.unwrap();
        show_page(&db, 20).await.unwrap();
        assert_eq!(Loaders::start(&db).summary(3).await.unwrap().traded, Some((30_000, 30_031)));
    }
}
