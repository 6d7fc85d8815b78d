//! A Redis Cluster: which node has a key, and what to do when it has moved.
//!
//! Commands go to the nodes together, one pipeline each, and each node's answers are looked at one by one: where a key has moved, or is about
//! to, its commands alone follow it. The map of slots is read when it is needed and read again when a node says that it is out of date, or
//! can't be reached. The redis crate's own client for clusters sends a pipeline to one slot, or starts all of it again when one key has moved.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use redis::{Cmd, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{is_of_connection, of_answer};
use crate::options::Place;
use crate::server::{Server, Settings, closed};
use crate::slots::{SlotMap, place_in_redirection};

/// How often commands are sent at most while keys move.
const ROUNDS: u32 = 6;
/// How long to wait for a slot of which some keys have moved and some have not, times the rounds before.
const MOVING_WAIT: Duration = Duration::from_millis(10);

/// A command over keys of one slot.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) slot: u16,
    pub(crate) cmd: Cmd,
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Nodes that are asked for the others. At least one.
    seeds: Vec<Place>,
    settings: Arc<Settings>,
    nodes: StdMutex<HashMap<Place, Arc<Server>>>,
    known: Mutex<Known>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    map: Option<Arc<SlotMap>>,
    /// When it last couldn't be read, and why.
    failed: Option<(Instant, Error)>,
}

/// A command that has no answer yet.
struct Pending {
    /// Which of all commands.
    number: usize,
    /// Where it goes; `None` for the slot's master.
    to: Option<Place>,
    /// Whether the node was named for this once, while the slot moves there.
    asking: bool,
    /// Why the node that has its slot couldn't be reached.
    failed: Option<(Place, Error)>,
}

/// What the answers of a round lead to.
#[derive(Default)]
struct Round {
    pending: Vec<Pending>,
    is_map_stale: bool,
    is_moving: bool,
}

impl Cluster {
    pub(crate) fn new(seeds: Vec<Place>, settings: Arc<Settings>) -> Self {
        Cluster {
            seeds,
            settings,
            nodes: StdMutex::default(),
            known: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Sends commands to the nodes that have their slots, and gives their answers, errors among them, in order.
    ///
    /// Commands that a node doesn't answer are sent to whichever node has their slot then, if that is another one. So a command may happen
    /// twice. Where a node fails, the commands for others have been sent all the same.
    pub(crate) async fn run(&self, commands: &[Command]) -> Result<Vec<Value>> {
        let mut answers = vec![Value::Nil; commands.len()];
        let first = |number| Pending { number, to: None, asking: false, failed: None };
        let mut pending: Vec<Pending> = (0..commands.len()).map(first).collect();
        let mut map = self.map(None).await?;
        for round in 1..=ROUNDS {
            let groups = self.grouped(commands, pending, &map)?;
            let sent = groups.into_iter().map(|(node, group)| self.send(commands, node, group));
            let mut next = Round::default();
            for (node, group, answered) in join_all(sent).await {
                next.take(&node, group, answered, &mut answers);
            }
            if next.pending.is_empty() {
                return Ok(answers);
            }
            if next.is_map_stale {
                map = self.map(Some(&map)).await?;
            }
            if next.is_moving {
                tokio::time::sleep(MOVING_WAIT * round).await;
            }
            pending = next.pending;
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!("keys moved within the Redis Cluster {ROUNDS} times in a row"),
        ))
    }

    /// Commands by the node they go to.
    fn grouped(
        &self,
        commands: &[Command],
        pending: Vec<Pending>,
        map: &SlotMap,
    ) -> Result<Vec<(Arc<Server>, Vec<Pending>)>> {
        let mut groups: HashMap<Place, Vec<Pending>> = HashMap::new();
        for mut pending in pending {
            let slot = commands[pending.number].slot;
            let place = match pending.to.take() {
                Some(place) => place,
                None => map.master(slot).cloned().ok_or_else(|| {
                    Error::new(ErrorKind::Busy, format!("no node of the Redis Cluster has slot {slot}"))
                })?,
            };
            match pending.failed.take() {
                // There is nobody else to turn to.
                Some((failed, error)) if failed == place => return Err(error),
                _ => groups.entry(place).or_default().push(pending),
            }
        }
        Ok(groups.into_iter().map(|(place, group)| (self.node(&place), group)).collect())
    }

    async fn send(
        &self,
        commands: &[Command],
        node: Arc<Server>,
        group: Vec<Pending>,
    ) -> (Arc<Server>, Vec<Pending>, Result<Vec<Value>>) {
        let mut pipeline = redis::pipe();
        for pending in &group {
            if pending.asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(commands[pending.number].cmd.clone());
        }
        let answered = node.send(&pipeline).await;
        (node, group, answered)
    }

    /// The map of slots, read where there is none or it is the one that is said to be stale.
    async fn map(&self, stale: Option<&Arc<SlotMap>>) -> Result<Arc<SlotMap>> {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        if let Some(map) = &known.map
            && stale.is_none_or(|stale| !Arc::ptr_eq(stale, map))
        {
            return Ok(Arc::clone(map));
        }
        // Calls that waited for one attempt don't make one more each.
        if let Some((at, error)) = &known.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        match self.read_map(known.map.as_deref()).await {
            Ok(map) => {
                let map = Arc::new(map);
                self.keep_nodes(&map);
                *known = Known { map: Some(Arc::clone(&map)), failed: None };
                Ok(map)
            }
            Err(error) => {
                known.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Asks all nodes that are known, and takes the first answer.
    async fn read_map(&self, known: Option<&SlotMap>) -> Result<SlotMap> {
        let mut places = self.seeds.clone();
        for place in known.map(SlotMap::masters).unwrap_or_default() {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        let mut answers: FuturesUnordered<_> =
            places.iter().map(|place| ask_for_map(self.node(place))).collect();
        let mut failure: Option<Error> = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(map) => return Ok(map),
                // A node that refuses says more than one that is away.
                Err(error) if failure.as_ref().is_none_or(is_of_connection) => failure = Some(error),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::InvalidConfig, "a Redis Cluster without nodes")))
    }

    fn node(&self, place: &Place) -> Arc<Server> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(place) {
            return Arc::clone(node);
        }
        let node = Arc::new(Server::new(place.clone(), Arc::clone(&self.settings)));
        nodes.insert(place.clone(), Arc::clone(&node));
        node
    }

    /// Lets go of nodes that have no slots any more.
    fn keep_nodes(&self, map: &SlotMap) {
        self.nodes().retain(|place, _| map.masters().contains(place) || self.seeds.contains(place));
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Place, Arc<Server>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the map anew and asks every master for a sign of life.
    pub(crate) async fn ping(&self) -> Result<()> {
        let known = self.map(None).await?;
        let map = self.map(Some(&known)).await?;
        let mut ping = redis::pipe();
        ping.cmd("PING");
        let nodes: Vec<_> = map.masters().iter().map(|place| self.node(place)).collect();
        for (node, answered) in nodes.iter().zip(join_all(nodes.iter().map(|node| node.send(&ping))).await) {
            if let Some(error @ Value::ServerError(_)) = answered?.first() {
                return Err(of_answer(error, node.name()));
            }
        }
        Ok(())
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let nodes: Vec<_> = self.nodes().drain().map(|(_, node)| node).collect();
        for node in nodes {
            node.close().await;
        }
    }
}

impl Round {
    /// Takes one node's answers.
    fn take(&mut self, node: &Server, group: Vec<Pending>, answered: Result<Vec<Value>>, all: &mut [Value]) {
        let answers = match answered {
            Ok(answers) => answers,
            Err(error) => {
                self.is_map_stale = true;
                let failed = |pending: Pending| Pending {
                    to: None,
                    asking: false,
                    failed: Some((node.place().clone(), error.clone())),
                    ..pending
                };
                self.pending.extend(group.into_iter().map(failed));
                return;
            }
        };
        let mut answers = answers.into_iter();
        for pending in group {
            if pending.asking {
                // ASKING's own, which is never refused but where the command behind it is.
                answers.next();
            }
            let Some(answer) = answers.next() else { continue };
            match self.redirected(node, &answer) {
                Some((to, asking)) => {
                    self.pending.push(Pending { to, asking, failed: None, number: pending.number });
                }
                None => all[pending.number] = answer,
            }
        }
    }

    /// Where a command is to be sent instead, and whether for this once.
    fn redirected(&mut self, node: &Server, answer: &Value) -> Option<(Option<Place>, bool)> {
        let Value::ServerError(error) = answer else { return None };
        let named = || place_in_redirection(error.details()?, node.place());
        match error.code() {
            "MOVED" => {
                self.is_map_stale = true;
                Some((Some(named()?), false))
            }
            "ASK" => Some((Some(named()?), true)),
            // Some of its keys are here and some have moved.
            "TRYAGAIN" => {
                self.is_moving = true;
                Some((None, false))
            }
            _ => None,
        }
    }
}

async fn ask_for_map(node: Arc<Server>) -> Result<SlotMap> {
    let mut commands = redis::pipe();
    commands.cmd("CLUSTER").arg("SLOTS");
    let answers = node.send(&commands).await?;
    let answer = answers.first().unwrap_or(&Value::Nil);
    match SlotMap::read(answer, node.place()) {
        Some(map) => Ok(map),
        None if matches!(answer, Value::Array(ranges) if ranges.is_empty()) => {
            Err(Error::new(ErrorKind::Busy, format!("{} knows of no node that has slots", node.name())))
        }
        None => Err(of_answer(answer, node.name())),
    }
}
