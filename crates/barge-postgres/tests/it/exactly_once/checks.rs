//! Whether what a writer answered is what the database holds.

use std::collections::BTreeMap;

use barge_core::{ErrorKind, Operation, Outcome};
use tokio_postgres::Client;

use super::IDS_A_SEED;
use super::work::Run;

impl Run {
    /// The numbers of two columns, of this run's rows, by the second one.
    async fn found(&self, side: &Client, table: &str, number: &str, id: &str) -> BTreeMap<i64, Vec<i64>> {
        let first = self.work.first_id();
        let sql = format!("SELECT {number}, {id} FROM {table} WHERE {id} >= $1 AND {id} < $2");
        let mut found: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for row in side.query(&sql, &[&first, &(first + IDS_A_SEED)]).await.unwrap() {
            found.entry(row.get(1)).or_default().push(row.get(0));
        }
        found
    }

    pub(super) fn errors(&self) -> Vec<&barge_core::Error> {
        let lines = self.lines.values().filter_map(|answer| answer.as_ref().err());
        let counters = self.counters.values().flatten().filter_map(|(_, _, answer)| answer.as_ref().err());
        lines.chain(counters).chain(self.drawn.values().filter_map(|answer| answer.as_ref().err())).collect()
    }

    fn check_account(&self) {
        let Run { work, report, .. } = self;
        let statistics = &report.statistics;
        let answers = self.lines.values().map(|answer| answer.is_ok());
        let answers = answers.chain(self.counters.values().flatten().map(|(_, _, answer)| answer.is_ok()));
        let answers: Vec<bool> = answers.chain(self.drawn.values().map(|answer| answer.is_ok())).collect();
        let committed = answers.iter().filter(|&&committed| committed).count() as u64;
        assert_eq!(statistics.added, answers.len() as u64, "{work}");
        assert_eq!(statistics.committed, committed, "{work}");
        assert_eq!(statistics.rejected, statistics.added - committed, "{work}");
        assert_eq!((statistics.buffered, statistics.in_flight), (0, 0), "{work}");
    }

    /// Whatever was answered is true. An error may leave its row in doubt only where a commit was cut off and nobody could find out.
    pub(super) async fn check_answers(&self, side: &Client) {
        let work = &self.work;
        self.check_account();
        let lines = self.found(side, "lines", "n", "id").await;
        for (id, answer) in &self.lines {
            let there = lines.get(id).map_or(&[][..], Vec::as_slice);
            match answer {
                Ok(outcome) => {
                    assert_eq!(*outcome, Outcome::Inserted, "{work}: line {id}");
                    assert_eq!(there, [*id], "{work}: line {id} was answered Ok");
                }
                Err(error) if is_in_doubt(error) => {
                    assert!(there.len() <= 1, "{work}: line {id} is twice: {error}")
                }
                Err(error) => assert!(there.is_empty(), "{work}: line {id} is there, answered {error:?}"),
            }
        }
        assert!(lines.keys().all(|id| self.lines.contains_key(id)), "{work}: a line nobody accepted");
        let drawn = self.found(side, "drawn", "id", "tag").await;
        for (tag, answer) in &self.drawn {
            let there = drawn.get(tag).map_or(&[][..], Vec::as_slice);
            match answer {
                Ok((outcome, key)) => {
                    assert_eq!(*outcome, Outcome::Inserted, "{work}: drawn {tag}");
                    assert_eq!(there, [key.unwrap()], "{work}: drawn {tag}: its key");
                }
                Err(error) if is_in_doubt(error) => assert!(there.len() <= 1, "{work}: drawn {tag} is twice"),
                Err(error) => assert!(there.is_empty(), "{work}: drawn {tag} is there, answered {error:?}"),
            }
        }
    }

    /// Faults passed: every row got through, and every answer is the one it would have had without faults.
    pub(super) async fn check_all(&self, side: &Client) {
        let work = &self.work;
        self.check_answers(side).await;
        assert_eq!(self.lines.len() as i64, work.tasks * work.lines + 1, "{work}");
        for (id, answer) in self.lines.iter().filter(|_| !(work.atomic && work.bad)) {
            match (work.is_bad(*id), answer) {
                (false, Ok(_)) => {}
                (true, Err(error)) if error.kind() == ErrorKind::CheckViolation => {}
                (_, answer) => panic!("{work}: line {id}: {answer:?}"),
            }
        }
        for (tag, answer) in self.drawn.iter().filter(|_| !(work.atomic && work.bad)) {
            assert!(answer.is_ok(), "{work}: drawn {tag}: {answer:?}");
        }
        self.check_counters(side).await;
    }

    /// Each counter went through its operations one by one.
    async fn check_counters(&self, side: &Client) {
        let work = &self.work;
        let found = self.found(side, "counters", "n", "id").await;
        for (id, operations) in &self.counters {
            let mut there: Option<i64> = None;
            for (operation, n, answer) in operations {
                let expected = match (operation, there) {
                    (Operation::Insert, Some(_)) => Err(ErrorKind::UniqueViolation),
                    (Operation::Insert | Operation::Upsert, None) => Ok(Outcome::Inserted),
                    (Operation::Update | Operation::Upsert, Some(_)) => Ok(Outcome::Updated),
                    (Operation::Delete, Some(_)) => Ok(Outcome::Deleted),
                    _ => Ok(Outcome::NotFound),
                };
                let answer = match answer {
                    // Rolled back because of another row of its flush.
                    Err(_) if work.atomic => continue,
                    answer => answer.as_ref().map_err(|error| error.kind()).copied(),
                };
                match answer {
                    Ok(Outcome::Inserted | Outcome::Updated) => there = Some(*n),
                    Ok(Outcome::Deleted) => there = None,
                    _ => {}
                }
                assert_eq!(answer, expected, "{work}: counter {id}, {operation} {n}");
            }
            assert_eq!(found.get(id), there.map(|n| vec![n]).as_ref(), "{work}: counter {id}");
        }
    }
}

pub(super) fn is_in_doubt(error: &barge_core::Error) -> bool {
    error.message().contains("could not be found out")
}
