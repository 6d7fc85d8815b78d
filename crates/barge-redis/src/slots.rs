//! Which node of a cluster has a key.

use std::collections::HashMap;

use redis::Value;

use crate::options::Place;

/// How many slots every cluster has.
const SLOTS: usize = 16_384;

/// No node.
const NOBODY: u16 = u16::MAX;

/// The slot of a key: of what is between its first `{` and the first `}` behind it, unless nothing is.
pub(crate) fn slot_of(key: &str) -> u16 {
    let key = key.as_bytes();
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let length = behind.iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &behind[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// The checksum that the cluster's specification names: CRC-16 with the polynomial 0x1021, as XMODEM has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) ^ CRC16[usize::from((sum >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut sum = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// Which node has which slot, as one of them told it.
#[derive(Debug)]
pub(crate) struct SlotMap {
    masters: Vec<Place>,
    /// For each slot the number of its master.
    of: Vec<u16>,
}

impl SlotMap {
    /// From the answer to CLUSTER SLOTS: `[first, last, [host, port, …], replicas…]` for each range. A node that doesn't know its own
    /// host leaves it out, and means the one under which it was asked.
    pub(crate) fn read(answer: &Value, asked: &Place) -> Option<SlotMap> {
        let Value::Array(ranges) = answer else { return None };
        let mut numbers: HashMap<Place, u16> = HashMap::new();
        let mut map = SlotMap { masters: Vec::new(), of: vec![NOBODY; SLOTS] };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
                return None;
            };
            let place = place_of(master, asked)?;
            let range = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
            let number = *numbers.entry(place).or_insert_with_key(|place| {
                map.masters.push(place.clone());
                (map.masters.len() - 1) as u16
            });
            map.of.get_mut(range)?.fill(number);
        }
        (!map.masters.is_empty()).then_some(map)
    }

    /// The master of a slot, where there is one.
    pub(crate) fn master(&self, slot: u16) -> Option<&Place> {
        self.masters.get(usize::from(*self.of.get(usize::from(slot))?))
    }

    /// All masters that have slots.
    pub(crate) fn masters(&self) -> &[Place] {
        &self.masters
    }
}

fn place_of(node: &[Value], asked: &Place) -> Option<Place> {
    let [host, Value::Int(port), ..] = node else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let host = if host.is_empty() { &asked.host } else { host };
    Some(Place { host: host.to_owned(), port: u16::try_from(*port).ok()? })
}

/// The place in a redirection's `SLOT HOST:PORT`. The host may be left out, as in CLUSTER SLOTS.
pub(crate) fn place_in_redirection(details: &str, asked: &Place) -> Option<Place> {
    let (_, address) = details.split_once(' ')?;
    let (host, port) = address.trim().rsplit_once(':')?;
    let host = if host.is_empty() { &asked.host } else { host };
    Some(Place { host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_redis_own() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As CLUSTER KEYSLOT says.
        for (key, slot) in [
            ("foo", 12182),
            ("", 0),
            ("{foo}bar", 12182),
            ("a{foo}{bar}", 12182),
            ("{}foo", 9500),
            ("foo{", 7673),
        ] {
            assert_eq!(slot_of(key), slot, "{key:?}");
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())]);
        let replica = Value::Array(vec![text("replica"), Value::Int(1)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    #[test]
    fn slots_go_to_masters() {
        let asked = Place { host: "asked".into(), port: 7000 };
        let answer = Value::Array(vec![
            range(0, 99, text("one"), 7001),
            range(100, 199, text(""), 7002),
            range(200, 299, Value::Nil, 7003),
            range(16_383, 16_383, text("one"), 7001),
        ]);
        let map = SlotMap::read(&answer, &asked).unwrap();
        let master = |slot| map.master(slot).map(ToString::to_string);
        assert_eq!(map.masters().len(), 3);
        assert_eq!(master(0).as_deref(), Some("one:7001"));
        assert_eq!(master(199).as_deref(), Some("asked:7002"));
        assert_eq!(master(200).as_deref(), Some("asked:7003"));
        assert_eq!(master(16_383).as_deref(), Some("one:7001"));
        assert_eq!(master(300), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let asked = Place { host: "asked".into(), port: 7000 };
        for answer in [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![range(0, 16_384, text("one"), 1)]),
            Value::Array(vec![range(-1, 5, text("one"), 1)]),
            Value::Array(vec![range(7, 5, text("one"), 1)]),
            Value::Array(vec![range(0, 5, text("one"), 70_000)]),
        ] {
            assert!(SlotMap::read(&answer, &asked).is_none(), "{answer:?}");
        }
    }

    #[test]
    fn redirections_name_places() {
        let asked = Place { host: "asked".into(), port: 7000 };
        let place = |details| place_in_redirection(details, &asked).map(|place| place.to_string());
        assert_eq!(place("3999 127.0.0.1:6381").as_deref(), Some("127.0.0.1:6381"));
        assert_eq!(place("3999 :6381").as_deref(), Some("asked:6381"));
        assert_eq!(place("3999 ::1:6381").as_deref(), Some("[::1]:6381"));
        assert_eq!(place("3999"), None);
    }
}
