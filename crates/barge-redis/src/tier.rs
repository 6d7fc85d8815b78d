//! The shared cache: calls as commands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barge_core::cache::{Entry, Lease, SharedTier};
use barge_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::{Cmd, Value};
use tokio::time::timeout;

use crate::cluster::{Cluster, Command};
use crate::error::of_answer;
use crate::keys::Keys;
use crate::options::{Place, RedisOptions};
use crate::script::{BARRED, FILL, INVALIDATE, RELEASE, Run, Script, holder};
use crate::server::{Server, Settings};
use crate::slots::slot_of;

/// How many keys one MGET reads: a server answers nobody else meanwhile, and larger ones are no faster.
const KEYS_PER_READ: usize = 1_000;

/// The longest that anything is kept. Redis counts milliseconds since 1970 in 63 bits.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A cache in Redis that processes share.
///
/// Cloning is cheap and shares the connections. Times are kept in whole milliseconds, at least one and at most a hundred years.
///
/// # When Redis is away
/// A call fails with `ConnectionLost`, `Timeout` or `Busy` within [`connect_timeout`](RedisOptions::connect_timeout) and
/// [`response_timeout`](RedisOptions::response_timeout) together, and at once where connections are refused. Each call tries again to
/// connect, so the first one after Redis is back succeeds. In a cluster, calls whose keys are all on other nodes go on; the keys of a node
/// that is away fail until the cluster has given its slots to a replica.
///
/// # What may happen twice
/// Commands are sent once more where a connection is found lost that had been used before, so that a restart of the server costs no call. None of them
/// does anything else the second time.
#[derive(Clone)]
pub struct RedisTier(Arc<Inner>);

struct Inner {
    name: String,
    keys: Keys,
    servers: Servers,
    /// How long a call may take in all.
    call_timeout: Duration,
}

enum Servers {
    Single(Server),
    Cluster(Cluster),
}

impl RedisTier {
    /// A cache by its URL: see [`RedisOptions::from_url`]. Nothing is sent before the first call; [`ping`](Self::ping) tells whether
    /// Redis is there.
    ///
    /// # Errors
    /// `InvalidConfig` where the URL is wrong or a certificate can't be read. No message holds the password.
    pub fn open(url: &str) -> Result<Self> {
        RedisOptions::from_url(url)?.open()
    }

    pub(crate) fn new(
        name: String,
        prefix: &str,
        mut places: Vec<Place>,
        cluster: bool,
        settings: Settings,
    ) -> Self {
        let call_timeout = settings.connect_timeout.saturating_add(settings.response_timeout);
        let settings = Arc::new(settings);
        let servers = match places.pop() {
            Some(place) if !cluster => Servers::Single(Server::new(place, settings)),
            last => {
                places.extend(last);
                Servers::Cluster(Cluster::new(places, settings))
            }
        };
        RedisTier(Arc::new(Inner { name, keys: Keys::new(prefix), servers, call_timeout }))
    }

    /// The URL without password and settings, for messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Asks the server, or all masters of the cluster, for a sign of life.
    ///
    /// # Errors
    /// Why there is none: `ConnectionLost`, `Timeout`, `Busy`, `Permission`, `InvalidConfig`.
    pub async fn ping(&self) -> Result<()> {
        let ping = async {
            match &self.0.servers {
                Servers::Single(_) => {
                    let answers = self.send(vec![self.command("", redis::cmd("PING"))]).await?;
                    answers.first().map_or(Ok(()), |answer| self.done(answer))
                }
                Servers::Cluster(cluster) => cluster.ping().await,
            }
        };
        self.in_time(ping).await
    }

    /// A command over a key as Redis knows it, and over others in the same slot.
    fn command(&self, key: &str, cmd: Cmd) -> Command {
        let slot = match &self.0.servers {
            Servers::Single(_) => 0,
            Servers::Cluster(_) => slot_of(key),
        };
        Command { slot, cmd }
    }

    async fn send(&self, commands: Vec<Command>) -> Result<Vec<Value>> {
        match &self.0.servers {
            _ if commands.is_empty() => Ok(Vec::new()),
            Servers::Single(server) => {
                let mut pipeline = redis::pipe();
                for command in commands {
                    pipeline.add_command(command.cmd);
                }
                server.send(&pipeline).await
            }
            Servers::Cluster(cluster) => cluster.run(&commands).await,
        }
    }

    /// Runs a script several times.
    async fn run(&self, script: &'static Script, runs: Vec<Run>) -> Result<()> {
        let command = |run: &Run, cmd| self.command(&run.keys[0], cmd);
        let commands = runs.iter().map(|run| command(run, script.by_hash(run)));
        let mut answers = self.send(commands.collect()).await?;
        let unknown: Vec<usize> =
            (0..runs.len()).filter(|number| is_unknown_script(&answers[*number])).collect();
        let commands = unknown.iter().map(|number| command(&runs[*number], script.by_text(&runs[*number])));
        let known = self.send(commands.collect()).await?;
        for (number, answer) in unknown.into_iter().zip(known) {
            answers[number] = answer;
        }
        answers.iter().try_for_each(|answer| self.done(answer))
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.0.call_timeout;
        timeout(limit, call).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("{} did not answer within {limit:?}", self.0.name)))
        })
    }

    fn done(&self, answer: &Value) -> Result<()> {
        match answer {
            Value::ServerError(_) => Err(of_answer(answer, &self.0.name)),
            _ => Ok(()),
        }
    }

    fn value(&self, answer: Value) -> Result<Option<Bytes>> {
        match answer {
            Value::BulkString(value) => Ok(Some(value.into())),
            Value::Nil => Ok(None),
            other => Err(of_answer(&other, &self.0.name)),
        }
    }

    /// From the answers to SET … NX and GET. Where two commands of one call were overtaken by somebody's bar, the bar counts. A lease that was
    /// the token's before is the token's: its call's answer may have been lost.
    fn lease_of(&self, set: &Value, found: &Value, holder: &str) -> Result<Lease> {
        self.done(set)?;
        self.done(found)?;
        Ok(match (set, found) {
            (_, Value::BulkString(found)) if found == BARRED.as_bytes() => Lease::Barred,
            (_, Value::BulkString(found)) if found == holder.as_bytes() => Lease::Granted,
            (Value::Okay, _) => Lease::Granted,
            _ => Lease::Held,
        })
    }
}

#[async_trait]
impl SharedTier for RedisTier {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        let names: Vec<String> = keys.iter().map(|key| self.0.keys.value(key)).collect();
        let get = |name: &String| self.command(name, redis::cmd("GET").arg(name).take());
        let mget = |names: &[String]| self.command("", redis::cmd("MGET").arg(names).take());
        let answers = self.in_time(self.send(match &self.0.servers {
            Servers::Single(_) => names.chunks(KEYS_PER_READ).map(mget).collect(),
            // Keys of one MGET must be in one slot, and few are.
            Servers::Cluster(_) => names.iter().map(get).collect(),
        }));
        let mut values = Vec::with_capacity(keys.len());
        for answer in answers.await? {
            match answer {
                Value::Array(found) => {
                    for value in found {
                        values.push(self.value(value)?);
                    }
                }
                value => values.push(self.value(value)?),
            }
        }
        match values.len() == keys.len() {
            true => Ok(values),
            false => Err(of_answer(&Value::Nil, &self.0.name)),
        }
    }

    async fn lease(&self, keys: &[String], token: &str, time: Duration) -> Result<Vec<Lease>> {
        let holder = holder(token);
        let commands = keys.iter().flat_map(|key| {
            let name = self.0.keys.lease(key);
            let mut set = redis::cmd("SET");
            set.arg(&name).arg(&holder).arg("NX").arg("PX").arg(milliseconds(time));
            let get = redis::cmd("GET").arg(&name).take();
            [self.command(&name, set), self.command(&name, get)]
        });
        let answers = self.in_time(self.send(commands.collect())).await?;
        answers.as_chunks().0.iter().map(|[set, found]| self.lease_of(set, found, &holder)).collect()
    }

    async fn fill(&self, entries: &[Entry], token: &str) -> Result<()> {
        let holder = Bytes::from(holder(token));
        let runs = entries.iter().map(|entry| Run {
            keys: vec![self.0.keys.value(&entry.key), self.0.keys.lease(&entry.key)],
            arguments: vec![holder.clone(), entry.value.clone(), milliseconds(entry.time).to_string().into()],
        });
        self.in_time(self.run(&FILL, runs.collect())).await
    }

    async fn release(&self, keys: &[String], token: &str) -> Result<()> {
        let holder = Bytes::from(holder(token));
        let runs = keys
            .iter()
            .map(|key| Run { keys: vec![self.0.keys.lease(key)], arguments: vec![holder.clone()] });
        self.in_time(self.run(&RELEASE, runs.collect())).await
    }

    async fn invalidate(&self, keys: &[String], bar: Duration) -> Result<()> {
        let time = Bytes::from(milliseconds(bar).to_string());
        let runs = keys.iter().map(|key| Run {
            keys: vec![self.0.keys.value(key), self.0.keys.lease(key)],
            arguments: vec![Bytes::from_static(BARRED.as_bytes()), time.clone()],
        });
        self.in_time(self.run(&INVALIDATE, runs.collect())).await
    }

    async fn mark(&self, marks: &[(String, Bytes)], time: Duration) -> Result<()> {
        let commands = marks.iter().map(|(key, value)| {
            let name = self.0.keys.value(key);
            let mut set = redis::cmd("SET");
            set.arg(&name).arg(value.as_ref()).arg("PX").arg(milliseconds(time));
            self.command(&name, set)
        });
        let answers = self.in_time(self.send(commands.collect())).await?;
        answers.iter().try_for_each(|answer| self.done(answer))
    }

    async fn close(&self) {
        match &self.0.servers {
            Servers::Single(server) => server.close().await,
            Servers::Cluster(cluster) => cluster.close().await,
        }
    }
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisTier").field(&self.0.name).finish()
    }
}

fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Whole milliseconds, as PX takes them: at least one.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.min(LONGEST).as_millis()).unwrap_or(u64::MAX).max(1)
}
