//! What has to be decided and done in one step runs in Redis as a script. Each touches one value and its lease, so that it works in a cluster.

use std::sync::OnceLock;

use bytes::Bytes;
use redis::Cmd;

/// What stands in a lease's place while filling is barred. No lease reads so: see [`holder`].
pub(crate) const BARRED: &str = "barred";

/// Keys: a value, its lease. Arguments: the holder, the value, its milliseconds. The value is set before the lease ends: where memory is
/// full, a script's first write is refused, and one behind it is not.
pub(crate) static FILL: Script = Script::new(
    "if redis.call('GET', KEYS[2]) == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
     redis.call('DEL', KEYS[2]) end \
     return 0",
);

/// Keys: a lease. Arguments: the holder.
pub(crate) static RELEASE: Script =
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0");

/// Keys: a value, its lease. Arguments: the bar, its milliseconds. Nothing comes between the two writes, so their order is free; this one
/// works where memory is full, since the first needs none, and the second isn't refused behind it.
pub(crate) static INVALIDATE: Script = Script::new(
    "redis.call('DEL', KEYS[1]) \
     redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) \
     return 0",
);

/// The text of a lease that a token holds.
pub(crate) fn holder(token: &str) -> String {
    format!("by {token}")
}

/// A script.
pub(crate) struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

/// What a script runs over.
pub(crate) struct Run {
    /// All in one slot.
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<Bytes>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Script { text, hash: OnceLock::new() }
    }

    /// Runs it by its hash, which a server that was restarted doesn't know.
    pub(crate) fn by_hash(&self, run: &Run) -> Cmd {
        let hash = self.hash.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned());
        run.command("EVALSHA", hash)
    }

    /// Runs it by its text, and the server then knows its hash.
    pub(crate) fn by_text(&self, run: &Run) -> Cmd {
        run.command("EVAL", self.text)
    }
}

impl Run {
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for argument in &self.arguments {
            command.arg(argument.as_ref());
        }
        command
    }
}
