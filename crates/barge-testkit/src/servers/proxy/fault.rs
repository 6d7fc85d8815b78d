//! Where a fault comes to pass, and the counting that finds the place.

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// Where a connection is cut.
///
/// A query is a statement that a message runs: a simple query, or the execution of a prepared statement. Its text is
/// compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before a query with this in its text: the server never sees it.
    BeforeQuery(String),
    /// After a query with this in its text: the server runs it, and the client never hears of it. A prepared statement
    /// is let through as far as the next Sync, which commits where no transaction is open.
    AfterQuery(String),
    /// Before a COMMIT. Other than `BeforeQuery("commit")` this does not take `ON COMMIT DROP` for one.
    BeforeCommit,
    /// After a COMMIT: the transaction is committed, and the client never hears of it.
    AfterCommit,
    /// When so many messages have gone this way. At 0, the next one does not get through.
    AfterMessages(Way, u64),
    /// When so many bytes have gone this way, maybe in the middle of a message.
    AfterBytes(Way, u64),
}

/// What has passed a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken.
    pub connections: u64,
    /// What went to the server.
    pub to_server: Traffic,
    /// What went to clients.
    pub to_client: Traffic,
}

/// What has gone one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Whole messages, those that open a connection included; none inside TLS.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Counts {
    /// What has come since an earlier count.
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            connections: self.connections - earlier.connections,
            to_server: self.to_server.since(earlier.to_server),
            to_client: self.to_client.since(earlier.to_client),
        }
    }

    /// What went one way.
    pub fn of(self, way: Way) -> Traffic {
        match way {
            Way::ToServer => self.to_server,
            Way::ToClient => self.to_client,
        }
    }
}

impl Traffic {
    fn since(self, earlier: Traffic) -> Traffic {
        Traffic { messages: self.messages - earlier.messages, bytes: self.bytes - earlier.bytes }
    }
}

/// Counts what passes and says where it stops.
#[derive(Debug, Default)]
pub(super) struct Meter {
    counts: Counts,
    armed: Option<Armed>,
    failed: bool,
}

#[derive(Debug)]
struct Armed {
    point: FaultPoint,
    /// How many queries that fit are still let through.
    skipped: u64,
    /// What had passed before.
    before: Counts,
}

/// What is to be done at a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtQuery {
    Pass,
    CutBefore,
    CutAfter,
}

/// How much of something passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) bytes: usize,
    /// Then the connection is cut.
    pub(super) cut: bool,
}

impl Meter {
    pub(super) fn arm(&mut self, skipped: u64, point: FaultPoint) {
        self.armed = Some(Armed { point, skipped, before: self.counts });
        self.failed = false;
    }

    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn count_connection(&mut self) {
        self.counts.connections += 1;
    }

    /// At a message that runs a statement, before it is admitted.
    pub(super) fn at_query(&mut self, text: &str) -> AtQuery {
        let Some(armed) = &mut self.armed else { return AtQuery::Pass };
        let (fits, action) = match &armed.point {
            FaultPoint::BeforeQuery(part) => (contains(text, part), AtQuery::CutBefore),
            FaultPoint::AfterQuery(part) => (contains(text, part), AtQuery::CutAfter),
            FaultPoint::BeforeCommit => (is_commit(text), AtQuery::CutBefore),
            FaultPoint::AfterCommit => (is_commit(text), AtQuery::CutAfter),
            FaultPoint::AfterMessages(..) | FaultPoint::AfterBytes(..) => (false, AtQuery::Pass),
        };
        if !fits {
            return AtQuery::Pass;
        }
        if armed.skipped > 0 {
            armed.skipped -= 1;
            return AtQuery::Pass;
        }
        self.come_to_pass();
        action
    }

    /// Counts so many bytes, which may be a message, as far as they pass.
    pub(super) fn admit(&mut self, way: Way, bytes: usize, is_message: bool) -> Admitted {
        let admitted = self.admitted(way, bytes, is_message);
        let traffic = match way {
            Way::ToServer => &mut self.counts.to_server,
            Way::ToClient => &mut self.counts.to_client,
        };
        traffic.bytes += admitted.bytes as u64;
        traffic.messages += u64::from(is_message && admitted.bytes == bytes);
        if admitted.cut {
            self.come_to_pass();
        }
        admitted
    }

    fn admitted(&self, way: Way, bytes: usize, is_message: bool) -> Admitted {
        let all = Admitted { bytes, cut: false };
        let Some(Armed { point, before, .. }) = &self.armed else { return all };
        let passed = self.counts.since(*before).of(way);
        match *point {
            FaultPoint::AfterMessages(of, limit) if of == way && is_message => {
                let is_over = passed.messages >= limit;
                Admitted { bytes: if is_over { 0 } else { bytes }, cut: passed.messages + 1 >= limit }
            }
            FaultPoint::AfterBytes(of, limit) if of == way => {
                let left = limit.saturating_sub(passed.bytes);
                Admitted { bytes: bytes.min(left as usize), cut: bytes as u64 >= left }
            }
            _ => all,
        }
    }

    fn come_to_pass(&mut self) {
        self.armed = None;
        self.failed = true;
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

/// Whether one of the statements of a query is a COMMIT. A semicolon inside a literal divides it here, too, which matters
/// only to a literal with a COMMIT in it.
fn is_commit(text: &str) -> bool {
    let first_word = |statement: &str| {
        let start = statement.trim_start();
        start
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    text.split(';').any(|statement| first_word(statement) == "commit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_a_statement_and_not_a_word() {
        for text in ["COMMIT", " commit;", "insert into t values (1); Commit\n", "commit and chain"] {
            assert!(is_commit(text), "{text}");
        }
        for text in ["create temp table t (i int) on commit drop", "commits", ""] {
            assert!(!is_commit(text), "{text}");
        }
    }

    #[test]
    fn queries_that_are_skipped_pass() {
        let mut meter = Meter::default();
        meter.arm(1, FaultPoint::AfterQuery("INSERT".to_owned()));
        assert_eq!(meter.at_query("insert into t values (1)"), AtQuery::Pass);
        assert_eq!(meter.at_query("commit"), AtQuery::Pass);
        assert!(!meter.has_failed());
        assert_eq!(meter.at_query("insert into t values (2)"), AtQuery::CutAfter);
        assert!(meter.has_failed());
        assert_eq!(meter.at_query("insert into t values (3)"), AtQuery::Pass);
    }

    #[test]
    fn messages_are_counted_from_the_arming_on() {
        let mut meter = Meter::default();
        meter.admit(Way::ToServer, 10, true);
        meter.arm(0, FaultPoint::AfterMessages(Way::ToServer, 2));
        assert_eq!(meter.admit(Way::ToServer, 10, true), Admitted { bytes: 10, cut: false });
        assert_eq!(meter.admit(Way::ToClient, 10, true), Admitted { bytes: 10, cut: false });
        assert_eq!(meter.admit(Way::ToServer, 10, true), Admitted { bytes: 10, cut: true });
        assert_eq!(meter.counts().to_server, Traffic { messages: 3, bytes: 30 });

        meter.arm(0, FaultPoint::AfterMessages(Way::ToServer, 0));
        assert_eq!(meter.admit(Way::ToServer, 10, true), Admitted { bytes: 0, cut: true });
    }

    #[test]
    fn a_cut_can_be_in_the_middle_of_a_message() {
        let mut meter = Meter::default();
        meter.arm(0, FaultPoint::AfterBytes(Way::ToClient, 13));
        assert_eq!(meter.admit(Way::ToClient, 10, true), Admitted { bytes: 10, cut: false });
        assert_eq!(meter.admit(Way::ToClient, 10, true), Admitted { bytes: 3, cut: true });
        assert_eq!(meter.counts().to_client, Traffic { messages: 1, bytes: 13 });
    }
}
